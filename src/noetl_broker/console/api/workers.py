"""Workers that hold leases."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from noetl_broker.console.access import Viewer, refuse_hidden_filter
from noetl_broker.console.paging import Listed, Paging
from noetl_broker.console.services import Pooled
from noetl_broker.console.values import Hidden, Id, Moment
from noetl_broker.store.admin import list_pages

router = APIRouter(prefix="/workers", tags=["workers"])


class WorkerView(BaseModel):
    """Who holds leases."""

    worker_id: Hidden
    leases: int
    expired: int = Field(description="leases that ended; a broker gives their jobs to others")
    next_lease_until: Moment | None
    last_heartbeat: Moment | None
    types: list[str]


class Workers(BaseModel):
    """All of them."""

    items: list[WorkerView]
    next: None = None


class LeaseView(BaseModel):
    """A job that a worker has."""

    queue_id: Id
    execution_id: Id
    node_id: str
    step: str
    type: str
    attempts: int
    worker_id: Hidden
    lease_until: Moment
    last_heartbeat: Moment | None


@router.get("", response_model=Workers)
async def list_workers(_caller: Viewer, connections: Pooled) -> Any:
    """List the workers that hold leases. A worker that waits for jobs leaves no trace in the database."""
    async with connections.borrow() as connection:
        return {"items": await list_pages.list_workers(connection)}


@router.get("/leases", response_model=Listed[LeaseView])
async def list_leases(
    caller: Viewer,
    connections: Pooled,
    page: Paging,
    worker_id: Annotated[str | None, Query(max_length=1_000)] = None,
) -> Any:
    """List the leases of a worker, or of all, in the order of their end. A viewer sees no ids of workers."""
    refuse_hidden_filter(caller, "ids of workers", worker_id)
    async with connections.borrow() as connection:
        return page.document(await list_pages.page_leases(connection, worker_id=worker_id, **page.arguments(int, int)))
