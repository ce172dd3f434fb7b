"""Schedules: the list, and one with its past and next moments; pause, resume, delete."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.screen import Paging, Posted, Shown
from noetl_broker.service import schedules as service
from noetl_broker.service.models.base import LONGEST_TEXT
from noetl_broker.service.models.schedules import ScheduleView
from noetl_broker.text import span

router = APIRouter()

MOMENTS: Final = 10  # that one schedule shows
NameOf = Annotated[str, Query(min_length=1, max_length=900)]


def timing_in_words(row: Mapping[str, Any]) -> str:
    """When a schedule starts: its cron text with its zone, or its span."""
    if row["cron"] is None:
        return f"every {span(row['every'])}" if row["every"] else "never"
    return f"{row['cron']} · {row['timezone']}"


@router.get("/schedules")
async def list_schedules(
    screen: Shown, page: Paging, path: Annotated[str, Query(max_length=LONGEST_TEXT)] = ""
) -> Response:
    """All schedules by name."""
    listed = await screen.rows(service.list_schedules, page, path=path.strip())
    return screen.render(
        "schedules.html",
        title="Schedules",
        changes="all",
        items=[{**row, "timing": timing_in_words(row)} for row in listed["items"]],
        next=listed["next"],
        asked={"path": path},
    )


@router.get("/schedules/one")
async def show_schedule(screen: Shown, name: NameOf) -> Response:
    """One schedule."""
    shown = await screen.ask(service.show_schedule, name=name)
    past = await screen.ask(service.list_past_moments, name=name, count=MOMENTS)
    seen = screen.seen(ScheduleView, shown)
    return screen.render(
        "schedule.html",
        title=name,
        changes="all",
        of=seen,
        timing=timing_in_words(seen),
        past=past["past"],
        next=[(at, datetime.fromisoformat(at)) for at in past["next"]],
        fault=past["fault"],
    )


@router.post("/schedules/pause")
async def pause(form: Posted) -> Response:
    """Let the moments of a schedule pass without a start."""
    name = form.text("name")
    changed = (await form.screen.ask(service.pause_schedule, name=name))["changed"]
    said = (
        f"The schedule {name} is paused: its moments pass." if changed else f"The schedule {name} was paused already."
    )
    return form.done(link("/schedules/one", name=name), said)


@router.post("/schedules/resume")
async def resume(form: Posted) -> Response:
    """End the pause of a schedule."""
    name = form.text("name")
    changed = (await form.screen.ask(service.resume_schedule, name=name))["changed"]
    said = f"The schedule {name} starts again; a backfill starts moments that passed."
    return form.done(link("/schedules/one", name=name), said if changed else f"The schedule {name} was not paused.")


@router.get("/schedules/delete")
async def confirm_delete(screen: Shown, _caller: Operator, name: NameOf) -> Response:
    """Ask before a schedule is deleted."""
    seen = screen.seen(ScheduleView, await screen.ask(service.show_schedule, name=name))
    return screen.render("delete_schedule.html", title="Delete a schedule", of=seen, timing=timing_in_words(seen))


@router.post("/schedules/delete")
async def delete(form: Posted) -> Response:
    """Delete a schedule. Executions that it started stay."""
    name = form.text("name")
    await form.screen.ask(service.delete_schedule, name=name)
    return form.done("/schedules", f"The schedule {name} is deleted. Executions that it started stay.")
