"""Health: what the command doctor finds, with the login of the console; what keeps brokers from working comes first."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response

from noetl_broker.console.pages.screen import Shown
from noetl_broker.service import health as service
from noetl_broker.service.models.health import HealthView

router = APIRouter()

MOST_LEFT: Final = 50  # executions with something left undone
ORDER: Final = ("problem", "notice", "ok")


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
