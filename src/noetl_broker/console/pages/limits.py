"""Limits: slots of executions with who holds them and who waits, and throttles of jobs with what they count."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.screen import Paging, Posted, Shown
from noetl_broker.errors import BrokerError, NotFoundFault
from noetl_broker.service import throttles as service
from noetl_broker.service.models.base import LONGEST_TEXT
from noetl_broker.service.models.slots import KeysOfThrottle, Throttles
from noetl_broker.text import numbers_text, rate_text

router = APIRouter()

MOST_KEYS: Final = 50  # of one throttle that the page lists
FIELDS: Final = ("name", "concurrency", "rate", "burst")
Text = Annotated[str, Query(max_length=LONGEST_TEXT)]


@router.get("/limits")
async def list_throttles(screen: Shown, page: Paging, *, path: Text = "", name: Text = "") -> Response:
    """The throttles of jobs, and the slots of executions by playbook and key."""
    limits = screen.seen(Throttles, await screen.ask(service.list_throttles))["items"]
    keys = await screen.ask(service.list_keys, name=name, limit=MOST_KEYS) if name else {"items": []}
    slots = await screen.rows(service.list_slots, page, path=path.strip())
    return screen.render(
        "limits.html",
        title="Limits",
        changes="all",
        limits=[{**row, "allows": numbers_text(row)} for row in limits],
        keys=screen.seen(KeysOfThrottle, keys)["items"],
        slots=slots["items"],
        next=slots["next"],
        asked={"path": path, "name": name},
    )


@router.get("/limits/line")
async def show_line(screen: Shown, _caller: Operator, page: Paging, *, path: Text = "", key: Text = "") -> Response:
    """The executions that hold a slot or wait for it."""
    listed = await screen.ask(service.list_line, path=path, key=key, cursor=page.cursor, limit=page.limit)
    return screen.render("line.html", title=listed.pop("name"), changes="all", of={"path": path, "key": key}, **listed)


@router.get("/limits/put")
async def show_form(screen: Shown, _caller: Operator, *, name: Text = "") -> Response:
    """The form of a throttle of jobs; of `name`, with its numbers."""
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
    return form.done("/limits", f"The throttle {made['name']} is {word}: {numbers_text(made)}.")


@router.get("/limits/delete")
async def show_delete(screen: Shown, _caller: Operator, *, name: Text = "") -> Response:
    """The page that asks before it deletes a throttle."""
    return screen.render("delete_throttle.html", title="Delete this throttle?", name=name)


@router.post("/limits/delete")
async def delete(form: Posted) -> Response:
    """Delete a throttle: its held jobs run."""
    name = form.text("name")
    try:
        await form.ask(service.delete_throttle, name=name)
    except NotFoundFault:
        return form.done(link("/limits"), f"There was no throttle {name}.", kind="info")
    return form.done(link("/limits"), f"The throttle {name} is deleted; its held jobs run.")
