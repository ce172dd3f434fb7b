"""Dead letters: events on which deciding failed; many are chosen to be given back to the broker."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from noetl_broker.console.pages.screen import Paging, Shown
from noetl_broker.service.health import list_dead_letters
from noetl_broker.service.models.base import LONGEST_TEXT

router = APIRouter()


@router.get("/dead-letters")
async def show_dead_letters(
    screen: Shown,
    page: Paging,
    *,
    path: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
    error: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
) -> Response:
    """Dead letters; the newest execution comes first. `error`: a part of the reason, as in bulk actions."""
    listed = await screen.rows(list_dead_letters, page, path=path.strip(), reason=error.strip())
    asked = {"path": path, "error": error}
    return screen.render("dead_letters.html", title="Dead letters", changes="all", asked=asked, **listed)
