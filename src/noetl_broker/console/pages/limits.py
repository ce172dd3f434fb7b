"""Limits: slots of executions with who holds them and who waits, and throttles of jobs with what they count."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.screen import Paging, Posted, Shown
from noetl_broker.console.services import Pooled
from noetl_broker.errors import BrokerError, DatabaseFault, OperatorFault
from noetl_broker.playbook.throttle import RATE_FORMS, parse_rate
from noetl_broker.service import paging
from noetl_broker.service.models.base import LONGEST_TEXT
from noetl_broker.service.models.slots import MOST, InLine, KeyOfThrottle, SlotView, ThrottleRow
from noetl_broker.store.admin import slot_lines, throttles
from noetl_broker.store.connect.session import translate_faults
from noetl_broker.text import numbers_text, rate_text, slot_name

router = APIRouter()

MOST_KEYS: Final = 50  # of one throttle that the page lists
LONGEST_NUMBER: Final = 10  # digits
Text = Annotated[str, Query(max_length=LONGEST_TEXT)]


@router.get("/limits")
async def list_throttles(
    screen: Shown, connections: Pooled, page: Paging, *, path: Text = "", name: Text = ""
) -> Response:
    """The throttles of jobs, and the slots of executions by playbook and key."""
    async with connections.borrow() as connection:
        limits = await throttles.list_throttles(connection)
        keys = await throttles.list_keys(connection, name, most=MOST_KEYS) if name else []
        after = paging.after(page, str, str) or ("", "")
        rows = await slot_lines.list_slots(connection, path=path.strip() or None, after=after, limit=page.limit + 1)
    found = paging.cut(page, rows, lambda row: (row["path"], row["key"]))
    return screen.render(
        "limits.html",
        title="Limits",
        changes="all",
        limits=[{**screen.seen(ThrottleRow, row), "allows": numbers_text(row)} for row in limits],
        keys=[screen.seen(KeyOfThrottle, row) for row in keys],
        slots=[{**screen.seen(SlotView, row), "is_schedule": row["path"] == ""} for row in found["items"]],
        next=found["next"],
        asked={"path": path, "name": name},
    )


@router.get("/limits/line")
async def show_line(
    screen: Shown, _caller: Operator, connections: Pooled, page: Paging, *, path: Text = "", key: Text = ""
) -> Response:
    """The executions that hold a slot or wait for it."""
    async with connections.borrow() as connection:
        rows = await slot_lines.list_line(
            connection, path, key, after=(paging.after(page, int) or (0,))[0], limit=page.limit + 1
        )
        first = await slot_lines.slots_of(connection, [row["execution_id"] for row in rows[:1]])
    name = next((one["name"] for one in first if (one["path"], one["key"]) == (path, key)), slot_name(path, key, ""))
    listed = paging.cut(page, rows, lambda row: (row["number"],))
    return screen.render(
        "line.html",
        title=name,
        changes="all",
        items=[screen.seen(InLine, row) for row in listed["items"]],
        next=listed["next"],
        of={"path": path, "key": key},
    )


@router.get("/limits/put")
async def show_form(screen: Shown, _caller: Operator, connections: Pooled, *, name: Text = "") -> Response:
    """The form of a throttle of jobs; of `name`, with its numbers."""
    fields = {"name": name, "concurrency": "", "rate": "", "burst": ""}
    if name:
        async with connections.borrow() as connection:
            row = next((one for one in await throttles.list_throttles(connection) if one["name"] == name), None)
        if row is not None:
            fields |= {part: "" if row[part] is None else str(row[part]) for part in ("concurrency", "burst")}
            fields["rate"] = "" if row["rate"] is None else rate_text(row["rate"])
    return screen.render("throttle.html", title="Limit jobs", fields=fields, errors={}, is_new=not name)


@router.post("/limits/put")
async def put(form: Posted, connections: Pooled) -> Response:
    """Make a throttle, or change its numbers."""
    fields = {name: form.text(name).strip() for name in ("name", "concurrency", "rate", "burst")}
    errors: dict[str, str] = {}
    numbers: dict[str, Any] = {}
    for part, read in (("concurrency", read_count), ("rate", read_rate), ("burst", read_count)):
        try:
            numbers[part] = read(fields[part]) if fields[part] else None
        except OperatorFault as fault:
            errors[part] = str(fault)
    if not errors:
        try:
            with translate_faults():
                async with connections.borrow() as connection:
                    new = await throttles.put_throttle(connection, fields["name"], **numbers)
        except DatabaseFault:
            raise
        except BrokerError as fault:
            errors["name"] = str(fault)
        else:
            said = f"The throttle {fields['name']} is {'made' if new else 'changed'}: {numbers_text(numbers)}."
            return form.done("/limits", said)
    return form.screen.render(
        "throttle.html",
        title="Limit jobs",
        status=HTTPStatus.BAD_REQUEST,
        fields=fields,
        errors=errors,
        is_new=form.text("new") == "1",
    )


def read_count(text: str) -> int:
    """A number of jobs. Raises OperatorFault."""
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER and 1 <= int(text) <= MOST):
        raise OperatorFault(f"{text!r:.40} is no number of jobs: write a number such as 5")
    return int(text)


def read_rate(text: str) -> float:
    """A rate, in jobs a second. Raises OperatorFault."""
    try:
        return parse_rate(text)
    except ValueError as error:
        raise OperatorFault(f"{text!r:.40} is not a rate: write {RATE_FORMS}") from error


@router.get("/limits/delete")
async def show_delete(screen: Shown, _caller: Operator, *, name: Text = "") -> Response:
    """The page that asks before it deletes a throttle."""
    return screen.render("delete_throttle.html", title="Delete this throttle?", name=name)


@router.post("/limits/delete")
async def delete(form: Posted, connections: Pooled) -> Response:
    """Delete a throttle: its held jobs run."""
    name = form.text("name")
    async with connections.borrow() as connection:
        found = await throttles.delete_throttle(connection, name)
    said = f"The throttle {name} is deleted; its held jobs run." if found else f"There was no throttle {name}."
    return form.done(link("/limits"), said, kind="ok" if found else "info")
