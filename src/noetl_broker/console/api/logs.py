"""Logs: what the steps of an execution printed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from noetl_broker.console.access import Operator
from noetl_broker.console.paging import Key, Listed, PageQuery, Paging
from noetl_broker.console.services import Pooled
from noetl_broker.console.values import ExecutionId, Id, Moment
from noetl_broker.errors import OperatorFault
from noetl_broker.node_ids import read_node
from noetl_broker.store.admin import logs

LARGEST_INT = 2**31 - 1

router = APIRouter(prefix="/executions/{execution_id}", tags=["executions"])

Subject = Annotated[
    str | None, Query(max_length=1_000, description="a step, load#2 for its second visit, load[7] for an item")
]


class LogEntry(BaseModel):
    """Text that one attempt printed on one stream, or logged with one level."""

    execution_id: Id
    node_id: str
    step: str
    visit: int
    index: int | None = Field(description="of an iterator's item, from 0")
    attempt: int
    ordinal: int = Field(description="the place in the log of the attempt, from 1")
    level: str = Field(description="debug, info, warning, error")
    created_at: Moment
    message: str = Field(description="with its ends of lines; a line may go on in the next entry")
    missing_bytes: int = Field(description="printed before this entry, and not kept")


@router.get("/logs", response_model=Listed[LogEntry])
async def list_log(
    _caller: Operator, connections: Pooled, page: Paging, execution_id: ExecutionId, step: Subject = None
) -> Any:
    """List what the steps of an execution printed and logged, by time."""
    name, visit, index = (None, None, None) if step is None else read_node(step)
    subject = logs.LogSubject(execution_id=execution_id, step=name, visit=visit, item_index=index)
    async with connections.borrow() as connection:
        rows = await logs.list_log(connection, subject, after=_after(page), limit=page.fetched)
    return page.listed(rows, _key)


def _key(row: Mapping[str, Any]) -> tuple[Key, ...]:
    return row["created_at"].isoformat(), row["node_id"], row["attempt"], row["ordinal"]


def _after(page: PageQuery) -> logs.Key | None:
    moment, node_id, attempt, ordinal = page.after(str, str, int, int)
    if moment is None:
        return None
    with contextlib.suppress(ValueError):
        at = datetime.fromisoformat(moment)
        if at.tzinfo is not None and 0 <= attempt <= LARGEST_INT and 0 <= ordinal <= LARGEST_INT:
            return logs.Key(at, node_id, attempt, ordinal)
    raise OperatorFault("the cursor is not one of this list; take `next` of the page before")
