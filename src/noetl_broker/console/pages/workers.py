"""Workers that hold leases, and their leases."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from noetl_broker.console.pages.overview import find_unserved
from noetl_broker.console.pages.screen import Paging, Shown
from noetl_broker.service import health as service
from noetl_broker.service import overview
from noetl_broker.service.models.health import WorkerView

router = APIRouter()


@router.get("/workers")
async def show_workers(
    screen: Shown, page: Paging, worker_id: Annotated[str, Query(max_length=1_000)] = ""
) -> Response:
    """Who holds leases, and the leases in the order of their end; `worker_id`: only the leases of this worker."""
    leases = await screen.rows(service.list_leases, page, worker_id=worker_id)
    workers = (await screen.ask(service.list_workers))["items"]
    unserved = await screen.ask(overview.list_unserved)
    return screen.render(
        "workers.html",
        title="Workers",
        changes="all",
        workers=[screen.seen(WorkerView, row) for row in workers],
        leases=leases["items"],
        next=leases["next"],
        worker_id=worker_id,
        warnings=list(find_unserved(unserved)),
    )
