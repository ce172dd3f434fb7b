"""Health: what the command doctor finds, with the login of the console; what keeps brokers from working comes first."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response

from noetl_broker.console.pages.screen import Shown
from noetl_broker.console.services import Pooled
from noetl_broker.service.models.health import DoctorFindingView
from noetl_broker.store.admin import list_pages
from noetl_broker.store.admin.doctor import examine

router = APIRouter()

MOST_LEFT: Final = 50  # executions with something left undone
ORDER: Final = ("problem", "notice", "ok")


@router.get("/health")
async def show_health(screen: Shown, connections: Pooled) -> Response:
    """All findings; problems first."""
    async with connections.borrow() as connection:
        left = await list_pages.page_left_undone(connection, limit=MOST_LEFT)
    findings = await examine(connections.database)
    screen.request.app.state.examinations.note(findings)
    found = [screen.seen(DoctorFindingView, finding._asdict()) for finding in findings]
    return screen.render(
        "health.html",
        title="Health",
        left=left.items,
        has_more_left=left.next is not None,
        findings=sorted(found, key=lambda finding: ORDER.index(finding["state"])),
        problems=sum(finding["state"] == "problem" for finding in found),
        notices=sum(finding["state"] == "notice" for finding in found),
    )
