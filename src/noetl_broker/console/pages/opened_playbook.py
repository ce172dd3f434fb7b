"""The common parts of a playbook's pages: the version that is open, and the frame around its part."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple

from fastapi import Depends, Query, Response

from noetl_broker.console.pages.screen import Screen, SentForm
from noetl_broker.playbook import Playbook, PlaybookError
from noetl_broker.playbook.plain_values import LARGEST_VERSION
from noetl_broker.service import playbooks as service
from noetl_broker.service.models.base import LONGEST_TEXT
from noetl_broker.service.models.playbooks import PlaybookView


class PlaybookTab(NamedTuple):
    """A part of a playbook's page."""

    name: str
    title: str
    url: str
    for_viewers: bool = False


PARTS: Final = (
    PlaybookTab("graph", "Graph", "/playbooks", for_viewers=True),
    PlaybookTab("start", "Start", "/playbooks/start"),
    PlaybookTab("source", "Source", "/playbooks/source"),
    PlaybookTab("versions", "Versions", "/playbooks/versions", for_viewers=True),
    PlaybookTab("difference", "Differences", "/playbooks/difference"),
    PlaybookTab("edit", "Edit and back-test", "/playbooks/edit"),
)


class Named(NamedTuple):
    """A playbook and its version; None: the latest."""

    path: str
    version: int | str | None


def _named(
    path: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
    version: Annotated[int | None, Query(ge=1, le=LARGEST_VERSION)] = None,
) -> Named:
    return Named(path, version)


WhichPlaybook = Annotated[Named, Depends(_named)]


def named_in(form: SentForm) -> Named:
    """The version that a form is about."""
    return Named(form.text("path"), form.text("version") or "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A version of a playbook: its text, what the list says of its path, and the versions, the latest first."""

    of: Any
    latest: Mapping[str, Any]
    versions: list[dict[str, Any]]

    @property
    def is_latest(self) -> bool:
        """Whether no version is newer."""
        return bool(self.of.version == self.latest["version"])


async def open_playbook(screen: Screen, named: Named) -> Opened:
    """A version of a playbook. Raises NotFoundFault."""
    found = await screen.ask(service.open_version, path=named.path, version=named.version)
    versions = [screen.seen(PlaybookView, row) for row in found["versions"]]
    return Opened(of=found["of"], latest=found["latest"], versions=versions)


def show_part(screen: Screen, opened: Opened, part: str, **values: Any) -> Response:
    """The page of a playbook with one of its parts; the part has a template of its own."""
    return screen.render(
        f"playbook_{part}.html",
        title=opened.of.path,
        opened=opened,
        of=opened.of,
        part=part,
        parts=[one for one in PARTS if screen.may_act or one.for_viewers],
        **values,
    )


async def compiled(screen: Screen, opened: Opened) -> tuple[Playbook | None, str | None]:
    """The compiled playbook, or why it cannot be; a long one takes seconds."""
    try:
        return await asyncio.to_thread(opened.of.compile, screen.asker.rules), None
    except PlaybookError as error:
        return None, str(error)
