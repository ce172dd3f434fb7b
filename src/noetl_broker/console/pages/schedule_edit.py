"""The forms that make or change a schedule, and that start its past moments after a preview."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.form_values import read_json, read_seconds, version_in
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.schedules import NameOf, timing_in_words
from noetl_broker.console.pages.schema_form import json_for_editing
from noetl_broker.console.pages.screen import Posted, Shown
from noetl_broker.console.services import LongWork, Pooled
from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.playbook.cron import read_cron
from noetl_broker.service.bulk import RATE, Acted
from noetl_broker.service.models.base import LONGEST_TEXT
from noetl_broker.service.models.schedules import MOST_SECONDS, MOST_STARTED
from noetl_broker.service.schedules import (
    next_moments,
    operator_faults,
    plan_backfill,
    schedule_as_document,
    start_missing,
)
from noetl_broker.service.spans import parse_since
from noetl_broker.service.typed_json import json_text
from noetl_broker.store.admin import list_pages
from noetl_broker.store.admin import schedules as store
from noetl_broker.store.admin.schedules import ScheduleSpec
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.session import translate_faults

router = APIRouter()

NEW: Final = {
    "name": "", "path": "", "version": "", "cron": "", "every": "", "timezone": "UTC", "jitter": "0s",
    "catch_up": "1h", "payload": "{}",
}  # fmt: skip
LISTED: Final = 200  # paths and moments
Errors = dict[str, str]


class Planned(NamedTuple):
    """A previewed backfill: how many moments there are, and the first moments that lack an execution."""

    moments: int
    missing: int
    at: list[str]


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
    connections: Pooled,
    *,
    name: Annotated[str, Query(max_length=900)] = "",
    path: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
) -> Response:
    """The form of a schedule, or without a name of a new one."""
    async with connections.borrow() as connection:
        row = schedule_as_document(await store.find_schedule(connection, name)) if name else None
        paths = [one["path"] for one in (await list_pages.page_playbooks(connection, limit=LISTED)).items]
    fields = {**NEW, "path": path}
    if row is not None:
        texts = {
            key: "" if row[key] is None else str(row[key]) for key in ("name", "path", "version", "cron", "timezone")
        }
        spans = {key: seconds_text(row[key]) for key in ("every", "jitter", "catch_up")}
        fields = {**texts, **spans, "payload": json_for_editing(row["payload"])}
    title = f"Change {name}" if name else "New schedule"
    return screen.render("schedule_edit.html", title=title, fields=fields, errors={}, paths=paths, is_new=not name)


@router.post("/schedules/edit")
async def put(form: Posted, connections: Pooled) -> Response:
    """Make the schedule, or change it; what is wrong stands at its fields."""
    fields = {name: form.text(name).strip() for name in NEW}
    spec, errors = read_spec(fields)
    if spec is not None:
        try:
            with translate_faults():
                async with connections.borrow() as connection:
                    changed = await store.put_schedule(connection, spec)
                    following = next_moments(await store.find_schedule(connection, spec.name), 1)
        except DatabaseFault:
            raise
        except BrokerError as fault:
            errors["name"] = str(fault)
        else:
            word = "is in place" if changed else "was so already"
            said = f"The schedule {spec.name} {word}; its next moment is {following[0] if following else 'never'}."
            return form.done(link("/schedules/one", name=spec.name), said)
    return form.screen.render(
        "schedule_edit.html",
        title=f"Change {fields['name']}" if form.text("is_new") != "1" else "New schedule",
        status=HTTPStatus.BAD_REQUEST,
        fields=fields,
        errors=errors,
        paths=[],
        is_new=form.text("is_new") == "1",
    )


def read_spec(fields: Mapping[str, str]) -> tuple[ScheduleSpec | None, Errors]:
    """The values of a form, or the errors of its fields."""
    errors: Errors = {name: "It is missing." for name in ("name", "path") if not fields[name]}
    spans: dict[str, timedelta | None] = {}
    for name in ("every", "jitter", "catch_up"):
        try:
            spans[name] = timedelta(seconds=min(read_seconds(fields[name]), MOST_SECONDS)) if fields[name] else None
        except ValueError as fault:
            errors[name] = str(fault)
    if bool(fields["cron"]) == bool(fields["every"]):
        errors["cron"] = "Give one of both: a cron text, or a span between starts."
    cron = None
    if fields["cron"]:
        try:
            with operator_faults():
                cron = read_cron(fields["cron"], fields["timezone"] or "UTC").text
        except BrokerError as fault:
            errors["cron"] = str(fault)
    version = fields["version"]
    if version and version_in(version) is None:
        errors["version"] = "It is no version: write a number, or nothing for the latest."
    payload = "{}"
    try:
        value = read_json(fields["payload"] or "{}")
        payload = json_text(value) if isinstance(value, dict) else errors.setdefault("payload", "It must be an object.")
    except (ValueError, BrokerError) as fault:
        errors["payload"] = str(fault)
    if errors:
        return None, errors
    return ScheduleSpec(
        name=fields["name"],
        path=fields["path"],
        cron=cron,
        every=spans["every"],
        payload=payload,
        timezone=fields["timezone"] or "UTC",
        version=int(version) if version else None,
        jitter=spans["jitter"] or timedelta(0),
        catch_up=spans["catch_up"] or timedelta(0),
    ), {}


@router.get("/schedules/backfill")
async def preview_backfill(
    screen: Shown,
    _caller: Operator,
    work: LongWork,
    name: NameOf,
    since: Annotated[str, Query(max_length=64)] = "",
    until: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Count the past moments without an execution, and list the first of them."""
    errors: Errors = {}
    begin, end = since.strip(), until.strip()
    for field, text in (("since", begin), ("until", end)):
        try:
            parse_since(text or "0s")
        except ValueError as fault:
            errors[field] = str(fault)

    async def look(connection: Connection) -> tuple[dict[str, Any], Planned | None]:
        row = schedule_as_document(await store.find_schedule(connection, name))
        if errors or not begin:
            return row, None
        plan = await plan_backfill(connection, name, begin, end or None)
        at = [store.moment_text(plan.timing, moment) for moment in plan.missing[:LISTED]]
        return row, Planned(len(plan.moments), len(plan.missing), at)

    row, planned = await work.run(look)
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
async def backfill(form: Posted, work: LongWork) -> Response:
    """Start missing executions of past moments, the oldest first."""
    name, since, until = form.text("name"), form.text("since").strip(), form.text("until").strip()

    async def start(connection: Connection) -> tuple[Acted, int]:
        plan = await plan_backfill(connection, name, since, until or None)
        first = plan._replace(missing=plan.missing[:MOST_STARTED])
        return await start_missing(connection, first, rate=RATE), len(plan.missing) - len(first.missing)

    acted, left = await work.run(start)
    return form.done(link("/schedules/one", name=name), backfilled(acted, left), kind="warn" if acted.failed else "ok")


def backfilled(acted: Acted, left: int) -> str:
    """Sentences about a finished backfill."""
    count = len(acted.done)
    said = f"{count:,} past moment{' has' if count == 1 else 's have'} an execution now."
    if acted.failed:
        said += f" {len(acted.failed):,} could not start: {acted.failed[0]['message']}"
    return said + (f" {left:,} more are missing: call the backfill again." if left else "")
