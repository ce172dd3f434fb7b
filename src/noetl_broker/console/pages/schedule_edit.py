"""The forms that make or change a schedule, and that start its past moments after a preview."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.schedules import NameOf, timing_in_words
from noetl_broker.console.pages.schema_form import json_for_editing
from noetl_broker.console.pages.screen import Posted, Shown
from noetl_broker.errors import BrokerError
from noetl_broker.service import playbooks
from noetl_broker.service import schedules as service
from noetl_broker.service.field_errors import FieldFault
from noetl_broker.service.models.base import LONGEST_TEXT
from noetl_broker.service.models.schedules import MOST_STARTED

router = APIRouter()

NEW: Final = {
    "name": "", "path": "", "version": "", "cron": "", "every": "", "timezone": "UTC", "jitter": "0s",
    "catch_up": "1h", "payload": "{}",
}  # fmt: skip
SPANS: Final = ("every", "jitter", "catch_up")
LISTED: Final = 200  # paths and moments


def seconds_text(seconds: float | None) -> str:
    """A span as a person types it."""
    if not seconds:
        return "0s" if seconds is not None else ""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds % unit == 0:
            return f"{seconds / unit:.0f}{name}"
    return f"{seconds:g}s"


@router.get("/schedules/edit")
async def show_form(
    screen: Shown,
    _caller: Operator,
    *,
    name: Annotated[str, Query(max_length=900)] = "",
    path: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
) -> Response:
    """The form of a schedule, or without a name of a new one."""
    fields = {**NEW, "path": path}
    if name:
        row = await screen.ask(service.show_schedule, name=name)
        fields = {key: "" if row[key] is None else str(row[key]) for key in NEW}
        fields |= {key: seconds_text(row[key]) for key in SPANS} | {"payload": json_for_editing(row["payload"])}
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
        put = await form.ask(service.put_schedule, jitter=fields["jitter"] or "0s", catch_up=fields["catch_up"] or "0s")
    except BrokerError as fault:
        title = "New schedule" if is_new else f"Change {name}"
        return form.screen.form("schedule_edit.html", title, fields, fault, paths=[], is_new=is_new)
    word, following = "is in place" if put["changed"] else "was so already", next(iter(put["next"]), "never")
    said = f"The schedule {name} {word}; its next moment is {following}."
    return form.done(link("/schedules/one", name=name), said)


@router.get("/schedules/backfill")
async def preview_backfill(
    screen: Shown,
    _caller: Operator,
    name: NameOf,
    since: Annotated[str, Query(max_length=64)] = "",
    until: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Count the past moments without an execution, and list the first of them."""
    row = await screen.ask(service.show_schedule, name=name)
    planned, errors = None, dict[str, str]()
    try:
        if since.strip():
            asked = {"since": since.strip(), "until": until.strip(), "limit": LISTED}
            planned = await screen.ask(service.backfill_schedule, name=name, **asked)
    except FieldFault as fault:
        errors = dict(fault.errors)
    return screen.render(
        "backfill.html",
        title=f"Backfill {name}",
        of=row,
        timing=timing_in_words(row),
        since=since,
        until=until,
        errors=errors,
        planned=planned,
        most=MOST_STARTED,
        status=HTTPStatus.BAD_REQUEST if errors else HTTPStatus.OK,
    )


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
