"""The stylesheets and scripts. Their address has a digest of all of them, so browsers keep them for good."""

from __future__ import annotations

import hashlib
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response

from noetl_broker.console.problem import Refusal
from noetl_broker.diagram.svg import STYLE
from noetl_broker.diagram.time_chart import CHART_STYLE

router = APIRouter()

_FOLDER: Final = Path(__file__).parents[1] / "static"
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_KEPT: Final = {"Cache-Control": "public, max-age=31536000, immutable"}


@cache
def files() -> dict[str, bytes]:
    """All files by name; `diagram.css` styles graphs and timelines."""
    found = {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}
    return {**found, "diagram.css": STYLE.read_bytes() + CHART_STYLE.read_bytes()}


@cache
def folder() -> str:
    """The address of the files; another one if any of them is another."""
    digest = hashlib.sha256()
    for name, content in files().items():
        digest.update(f"{name} {len(content)} ".encode() + content)
    return f"/static/{digest.hexdigest()[:12]}"


def address(name: str) -> str:
    """The address of a file."""
    return f"{folder()}/{name}"


@router.get("/static/{digest}/{name}")
async def show_file(digest: str, name: str) -> Response:
    """A file; under an old digest, the file as it is now, which is not kept."""
    content = files().get(name)
    if content is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"there is no file {name!r:.80}")
    headers = _KEPT if folder().endswith(f"/{digest}") else {"Cache-Control": "no-cache"}
    return Response(content, media_type=_TYPES[Path(name).suffix], headers=headers)


@router.get("/favicon.ico", include_in_schema=False)
async def show_icon() -> Response:
    """The console's icon, for browsers that ask without being told where it is."""
    return Response(files()["icon.svg"], media_type=_TYPES[".svg"], headers={"Cache-Control": "public, max-age=86400"})
