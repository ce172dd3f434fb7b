"""Dead letters: events on which deciding failed; many are chosen to be given back to the broker."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import refuse_hidden_filter
from noetl_broker.console.pages.screen import Shown
from noetl_broker.console.paging import Paging
from noetl_broker.console.services import Pooled
from noetl_broker.service.models.base import LONGEST_TEXT
from noetl_broker.service.models.health import DeadLetter
from noetl_broker.store.admin import list_pages

router = APIRouter()


@router.get("/dead-letters")
async def list_dead_letters(
    screen: Shown,
    connections: Pooled,
    page: Paging,
    *,
    path: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
    error: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
) -> Response:
    """Dead letters; the newest execution comes first. `error`: a part of the reason, as in bulk actions."""
    refuse_hidden_filter(screen.caller, "reasons", error or None)
    async with connections.borrow() as connection:
        found = await list_pages.page_dead_letters(
            connection, path=path.strip() or None, reason=error.strip() or None, **page.arguments(int, int)
        )
    listed = page.document(found)
    return screen.render(
        "dead_letters.html",
        title="Dead letters",
        changes="all",
        items=[screen.seen(DeadLetter, row) for row in listed["items"]],
        next=listed["next"],
        asked={"path": path, "error": error},
    )
