"""Workers that hold leases, and their leases."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import refuse_hidden_filter
from noetl_broker.console.pages.overview import find_unserved
from noetl_broker.console.pages.screen import Shown
from noetl_broker.console.paging import Paging
from noetl_broker.console.services import Pooled
from noetl_broker.service.models.health import LeaseView, WorkerView
from noetl_broker.store.admin import list_pages, overview

router = APIRouter()


@router.get("/workers")
async def show_workers(
    screen: Shown, connections: Pooled, page: Paging, worker_id: Annotated[str, Query(max_length=1_000)] = ""
) -> Response:
    """Who holds leases, and the leases in the order of their end; `worker_id`: only the leases of this worker."""
    refuse_hidden_filter(screen.caller, "ids of workers", worker_id or None)
    async with connections.borrow() as connection:
        workers = await list_pages.list_workers(connection)
        found = await list_pages.page_leases(connection, worker_id=worker_id or None, **page.arguments(int, int))
        unserved = await overview.list_unserved(connection)
    leases = page.document(found)
    return screen.render(
        "workers.html",
        title="Workers",
        changes="all",
        workers=[screen.seen(WorkerView, row) for row in workers],
        leases=[screen.seen(LeaseView, row) for row in leases["items"]],
        next=leases["next"],
        worker_id=worker_id,
        warnings=list(find_unserved(unserved)),
    )
