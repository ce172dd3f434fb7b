"""Limits: slots of executions with who holds them and who waits, and throttles of jobs with what they count."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Response

from noetl_broker.console.pages.screen import Acting, Posted, Shown
from noetl_broker.errors import BrokerError, NotFoundFault
from noetl_broker.service import throttles as service
from noetl_broker.service.models.slots import KeysOfThrottle, Throttles
from noetl_broker.text import numbers_text, rate_text

router = APIRouter()

MOST_KEYS: Final = 50  # of one throttle that the page lists
FIELDS: Final = ("name", "concurrency", "rate", "burst")


@router.get("/limits")
async def list_throttles(screen: Shown) -> Response:
    """The throttles of jobs, and the slots of executions by playbook and key."""
    limits = screen.seen(Throttles, await screen.ask(service.list_throttles))["items"]
    name = screen.asked("name")["name"]
    keys = await screen.ask(service.list_keys, name=name, limit=MOST_KEYS) if name else {"items": []}
    slots = await screen.rows(service.list_slots, "path")
    shown = {"limits": limits, "keys": screen.seen(KeysOfThrottle, keys)["items"], "slots": slots["items"]}
    return screen.render("limits.html", title="Limits", changes="all", next=slots["next"], **shown)


@router.get("/limits/line")
async def show_line(screen: Acting) -> Response:
    """The executions that hold a slot or wait for it."""
    listed = await screen.rows(service.list_line, "path", "key")
    return screen.render("line.html", title=listed.pop("name"), changes="all", **listed)


@router.get("/limits/put")
async def show_form(screen: Acting) -> Response:
    """The form of a throttle of jobs; of `name`, with its numbers."""
    name = screen.asked("name")["name"]
    rows = (await screen.ask(service.list_throttles))["items"] if name else []
    row: dict[str, Any] = next((one for one in rows if one["name"] == name), {"name": name})
    fields = {part: "" if row.get(part) is None else str(row[part]) for part in FIELDS}
    if fields["rate"]:
        fields["rate"] = rate_text(row["rate"])
    return screen.form("throttle.html", "Limit jobs", fields, is_new=not name)


@router.post("/limits/put")
async def put(form: Posted) -> Response:
    """Make a throttle, or change its numbers."""
    try:
        made = await form.ask(service.put_throttle)
    except BrokerError as fault:
        is_new = form.text("new") == "1"
        return form.screen.form("throttle.html", "Limit jobs", form.texts(*FIELDS), fault, is_new=is_new)
    word = "made" if made["new"] else "changed"
    return form.done("/limits", f"The limit {made['name']} is {word}: {numbers_text(made)}.")


@router.get("/limits/delete")
async def show_delete(screen: Acting) -> Response:
    """The page that asks before it deletes a throttle."""
    return screen.render("delete_throttle.html", title="Delete this limit?", name=screen.asked("name")["name"])


@router.post("/limits/delete")
async def delete(form: Posted) -> Response:
    """Delete a throttle: its held jobs run."""
    name = form.text("name")
    try:
        await form.ask(service.delete_throttle, name=name)
    except NotFoundFault as fault:
        return form.done("/limits", str(fault), kind="info")
    return form.done("/limits", f"The limit {name} is deleted; its held jobs run.")
