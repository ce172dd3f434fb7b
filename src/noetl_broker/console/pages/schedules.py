"""Schedules: the list, and one with its past and next moments; put, pause, resume, backfill, delete."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Response

from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.schema_form import json_for_editing
from noetl_broker.console.pages.screen import Acting, Posted, Shown
from noetl_broker.errors import BrokerError
from noetl_broker.service import playbooks
from noetl_broker.service import schedules as service
from noetl_broker.service.field_errors import FieldFault
from noetl_broker.service.models.schedules import MOST_STARTED, ScheduleView
from noetl_broker.service.typed_values import tag_lines

router = APIRouter()

MOMENTS: Final = 10  # that one schedule shows
NEW: Final = {
    "name": "", "path": "", "version": "", "cron": "", "every": "", "timezone": "UTC", "jitter": "0s",
    "catch_up": "1h", "overlap": "skip", "tags": "", "priority": "", "payload": "{}",
}  # fmt: skip
SPANS: Final = ("every", "jitter", "catch_up")
LISTED: Final = 200  # paths and moments


@router.get("/schedules")
async def list_schedules(screen: Shown) -> Response:
    """All schedules by name."""
    listed = await screen.rows(service.list_schedules, "path")
    return screen.render("schedules.html", title="Schedules", changes="all", **listed)


@router.get("/schedules/one")
async def show_schedule(screen: Shown) -> Response:
    """One schedule."""
    shown = await screen.ask(service.show_schedule, **screen.asked("name"))
    past = await screen.ask(service.list_past_moments, name=shown["name"], count=MOMENTS)
    past["next"] = [(at, datetime.fromisoformat(at)) for at in past["next"]]
    of = screen.seen(ScheduleView, shown)
    return screen.render("schedule.html", title=of["name"], changes="all", of=of, **past)


@router.post("/schedules/pause")
async def pause(form: Posted) -> Response:
    """Let the moments of a schedule pass without a start."""
    name = form.text("name")
    changed = (await form.screen.ask(service.pause_schedule, name=name))["changed"]
    said = "is paused: its moments pass." if changed else "was paused already."
    return form.done(link("/schedules/one", name=name), f"The schedule {name} {said}")


@router.post("/schedules/resume")
async def resume(form: Posted) -> Response:
    """End the pause of a schedule."""
    name = form.text("name")
    changed = (await form.screen.ask(service.resume_schedule, name=name))["changed"]
    said = "starts again; a backfill starts moments that passed." if changed else "was not paused."
    return form.done(link("/schedules/one", name=name), f"The schedule {name} {said}")


@router.get("/schedules/delete")
async def confirm_delete(screen: Acting) -> Response:
    """Ask before a schedule is deleted."""
    found = await screen.ask(service.show_schedule, **screen.asked("name"))
    return screen.render("delete_schedule.html", title="Delete a schedule", of=found)


@router.post("/schedules/delete")
async def delete(form: Posted) -> Response:
    """Delete a schedule. Executions that it started stay."""
    name = form.text("name")
    await form.screen.ask(service.delete_schedule, name=name)
    return form.done("/schedules", f"The schedule {name} is deleted. Executions that it started stay.")


def seconds_text(seconds: float | None) -> str:
    """A span as a person types it."""
    if not seconds:
        return "0s" if seconds is not None else ""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds % unit == 0:
            return f"{seconds / unit:.0f}{name}"
    return f"{seconds:g}s"


@router.get("/schedules/edit")
async def show_form(screen: Acting) -> Response:
    """The form of a schedule, or without a name of a new one."""
    asked = screen.asked("name", "path")
    name, fields = asked["name"], {**NEW, "path": asked["path"]}
    if name:
        row = await screen.ask(service.show_schedule, name=name)
        fields = {key: "" if row[key] is None else str(row[key]) for key in NEW}
        fields |= {key: seconds_text(row[key]) for key in SPANS} | {"payload": json_for_editing(row["payload"])}
        fields["tags"] = "\n".join(tag_lines(row["tags"]))
    paths = [one["path"] for one in (await screen.ask(playbooks.list_playbooks, limit=LISTED))["items"]]
    title = f"Change {name}" if name else "New schedule"
    return screen.form("schedule_edit.html", title, fields, paths=paths, is_new=not name)


@router.post("/schedules/edit")
async def put(form: Posted) -> Response:
    """Make the schedule, or change it; what is wrong stands at its fields."""
    fields, is_new = form.texts(*NEW), form.text("is_new") == "1"
    name = fields["name"]
    try:
        if bool(fields["cron"]) == bool(fields["every"]):
            raise FieldFault({"cron": "give one of both: a cron text, or a span between starts"})
        put = await form.ask(service.put_schedule)
    except BrokerError as fault:
        title = "New schedule" if is_new else f"Change {name}"
        return form.screen.form("schedule_edit.html", title, fields, fault, paths=[], is_new=is_new)
    word, following = "is in place" if put["changed"] else "was so already", next(iter(put["next"]), "never")
    said = f"The schedule {name} {word}; its next moment is {following}."
    return form.done(link("/schedules/one", name=name), said)


@router.get("/schedules/backfill")
async def preview_backfill(screen: Acting) -> Response:
    """Count the past moments without an execution, and list the first of them."""
    row = await screen.ask(service.show_schedule, **screen.asked("name"))
    planned, errors, asked = None, dict[str, str](), screen.asked("since", "until")
    try:
        if asked["since"]:
            planned = await screen.ask(service.backfill_schedule, name=row["name"], limit=LISTED, **asked)
    except FieldFault as fault:
        errors = dict(fault.errors)
    shown = {"of": row, "errors": errors, "planned": planned, "most": MOST_STARTED, **asked}
    status = HTTPStatus.BAD_REQUEST if errors else HTTPStatus.OK
    return screen.render("backfill.html", title=f"Backfill {row['name']}", status=status, **shown)


@router.post("/schedules/backfill")
async def backfill(form: Posted) -> Response:
    """Start missing executions of past moments, the oldest first."""
    name = form.text("name")
    acted = await form.ask(service.backfill_schedule, name=name, preview=False, limit=MOST_STARTED)
    said = backfilled(acted)
    return form.done(link("/schedules/one", name=name), said, kind="warn" if acted["failed"] else "ok")


def backfilled(acted: dict[str, Any]) -> str:
    """Sentences about a finished backfill."""
    count, failed = len(acted["done"]), acted["failed"]
    said = f"{count:,} past moment{' has' if count == 1 else 's have'} an execution now."
    if failed:
        said += f" {len(failed):,} could not start: {failed[0]['message']}"
    left = acted["found"] - count - len(failed)
    return said + (f" {left:,} more are missing: call the backfill again." if left else "")
