"""Workers, dead letters, and Health: what keeps brokers from working, as the command doctor finds it."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response

from noetl_broker.console.pages.overview import find_unserved
from noetl_broker.console.pages.screen import Shown
from noetl_broker.service import health as service
from noetl_broker.service import overview
from noetl_broker.service.models.health import HealthView, Workers

router = APIRouter()

MOST_LEFT: Final = 50  # executions with something left undone
ORDER: Final = ("problem", "notice", "ok")


@router.get("/workers")
async def show_workers(screen: Shown) -> Response:
    """The workers, and the leases in the order of their end; `worker_id`: only the leases of this worker."""
    leases = await screen.rows(service.list_leases, "worker_id")
    workers = screen.seen(Workers, await screen.ask(service.list_workers))["items"]
    warnings = list(find_unserved((await screen.ask(overview.list_unserved))["items"]))
    shown = {"workers": workers, "leases": leases["items"], "next": leases["next"], "warnings": warnings}
    return screen.render("workers.html", title="Workers", changes="all", **shown)


@router.get("/dead-letters")
async def show_dead_letters(screen: Shown) -> Response:
    """Dead letters; the newest execution comes first. `error`: a part of the reason, as in bulk actions."""
    listed = await screen.rows(service.list_dead_letters, "path", reason=screen.asked("error")["error"])
    return screen.render("dead_letters.html", title="Dead letters", changes="all", **listed)


@router.get("/health")
async def show_health(screen: Shown) -> Response:
    """All findings; problems first."""
    left = await screen.ask(service.list_left_undone, limit=MOST_LEFT)
    found = await screen.ask(service.list_findings)
    screen.request.app.state.examinations.note(found["problems"], found["notices"])
    shown = screen.seen(HealthView, found)
    shown["findings"].sort(key=lambda finding: ORDER.index(finding["state"]))
    has_more = left["next"] is not None
    return screen.render("health.html", title="Health", left=left["items"], has_more_left=has_more, **shown)
