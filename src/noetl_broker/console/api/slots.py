"""Slots of executions: who holds them, and who waits."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from noetl_broker.console.access import Operator, Viewer
from noetl_broker.console.api.execution_actions import LONGEST_TEXT
from noetl_broker.console.paging import Listed, Paging
from noetl_broker.console.services import Pooled
from noetl_broker.console.values import Hidden, Id, Moment
from noetl_broker.store.admin import slot_lines as store

router = APIRouter(prefix="/slots", tags=["slots"])

PathOf = Annotated[str, Query(max_length=LONGEST_TEXT, description="of which playbook; empty: of schedules")]


class SlotView(BaseModel):
    """A slot: at most so many executions of a path and key hold it."""

    path: str = Field(description="empty: the slot of a schedule")
    key: Hidden
    name: Hidden = Field(description="what it is for, such as `customer 7`")
    max_held: int
    held: int
    waiting: int = Field(description="executions that wait for it; 10,000 means at least so many")
    waited_for_since: Moment | None
    holders: list[Id] = Field(description="the first 10")


class InLine(BaseModel):
    """An execution that holds a slot or waits for it."""

    execution_id: Id
    status: str
    started_at: Moment
    number: int = Field(description="its number in the line")
    since: Moment = Field(description="when it asked")
    held_at: Moment | None = Field(description="since when it holds the slot; null: it waits")
    cancelled_at: Moment | None = Field(description="when it was told to cancel for a later one")


@router.get("", response_model=Listed[SlotView])
async def list_slots(
    _caller: Viewer,
    connections: Pooled,
    page: Paging,
    path: Annotated[str | None, Query(max_length=LONGEST_TEXT, description="only of this playbook")] = None,
) -> Any:
    """List slots by playbook and key: who holds them, and how many wait. A viewer sees no keys."""
    async with connections.borrow() as connection:
        rows = await store.list_slots(
            connection, path=path, after=page.after(str, str) if page.cursor else ("", ""), limit=page.fetched
        )
    return page.listed(rows, lambda row: (row["path"], row["key"]))


@router.get("/line", response_model=Listed[InLine])
async def list_line(
    _caller: Operator,
    connections: Pooled,
    page: Paging,
    path: PathOf,
    key: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
) -> Any:
    """List the executions that hold a slot or wait for it, by number."""
    async with connections.borrow() as connection:
        rows = await store.list_line(connection, path, key, after=page.after(int)[0] or 0, limit=page.fetched)
    return page.listed(rows, lambda row: (row["number"],))
