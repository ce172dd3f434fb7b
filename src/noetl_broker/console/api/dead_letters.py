"""Dead letters: events on which deciding failed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from noetl_broker.console.access import Viewer, refuse_hidden_filter
from noetl_broker.console.api.execution_actions import LONGEST_TEXT
from noetl_broker.console.paging import Listed, Paging
from noetl_broker.console.services import Pooled
from noetl_broker.console.values import Id, Moment, Payload
from noetl_broker.store.admin import list_pages

router = APIRouter(prefix="/dead-letters", tags=["dead letters"])


class DeadLetter(BaseModel):
    """An event on which deciding failed, with its execution."""

    execution_id: Id
    path: str | None
    version: int | None
    status: str | None
    event_id: Id
    event_type: str | None
    step: str | None
    reason: Payload
    created_at: Moment


@router.get("", response_model=Listed[DeadLetter])
async def list_dead_letters(
    caller: Viewer,
    connections: Pooled,
    page: Paging,
    path: Annotated[str | None, Query(max_length=LONGEST_TEXT, description="* stands for any characters")] = None,
    reason: Annotated[str | None, Query(max_length=LONGEST_TEXT, description="a part of it")] = None,
) -> Any:
    """List dead letters, those of the newest executions first.

    POST /executions/{execution_id}/reevaluate gives them back to the broker.
    """
    refuse_hidden_filter(caller, "reasons", reason)
    async with connections.borrow() as connection:
        found = await list_pages.page_dead_letters(connection, path=path, reason=reason, **page.arguments(int, int))
    return page.document(found)
