"""Signals: visits that wait for one, the kept signals, and a form that sends one."""

from __future__ import annotations

import hashlib
import json
import secrets
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.form_values import read_json, read_seconds
from noetl_broker.console.pages.rendering import link
from noetl_broker.console.pages.screen import Paging, Posted, Shown
from noetl_broker.console.services import Pooled
from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.playbook.plain_values import NAME_CHARS
from noetl_broker.service import waits as service
from noetl_broker.service.models.base import LONGEST_TEXT
from noetl_broker.service.models.waits import MOST_KEEP_SECONDS
from noetl_broker.service.typed_json import json_text
from noetl_broker.store.admin import signals
from noetl_broker.store.connect.session import translate_faults

router = APIRouter()

NameOf = Annotated[str, Query(max_length=NAME_CHARS)]
KeyOf = Annotated[str, Query(max_length=LONGEST_TEXT)]
KEEP: Final = "7d"  # as the form shows it
MOST_WAITS: Final = 50  # that the page lists
SHORT: Final = 120  # characters of a payload on one line


@router.get("/signals")
async def list_signals(
    screen: Shown, connections: Pooled, page: Paging, *, name: NameOf = "", key: KeyOf = ""
) -> Response:
    """The waits for a signal, and the kept signals, the newest first."""
    listed = await screen.rows(service.list_signals, page, name=name, key=key)
    async with connections.borrow() as connection:
        waits = await signals.list_signal_waits(connection, name=name or None, key=key or None, limit=MOST_WAITS + 1)
    return screen.render(
        "signals.html",
        title="Signals",
        changes="all",
        items=[{**row, "short": on_one_line(row["payload"])} for row in listed["items"]],
        next=listed["next"],
        waits=waits[:MOST_WAITS],
        has_more_waits=len(waits) > MOST_WAITS,
        asked={"name": name, "key": key},
    )


def on_one_line(payload: Any) -> str | None:
    """A short payload as JSON on one line; None if it is long or hidden."""
    text = json.dumps(payload, ensure_ascii=False, default=str)
    return text if payload is not None and len(text) <= SHORT else None


@router.get("/signals/send")
async def show_form(screen: Shown, _caller: Operator, *, name: NameOf = "", key: KeyOf = "") -> Response:
    """The form, with a key of its own: a second click on its button sends nothing."""
    fields = {"name": name, "key": key, "payload": "", "keep": KEEP, "once": secrets.token_urlsafe(16)}
    return screen.render("send_signal.html", title="Send a signal", fields=fields, errors={})


@router.post("/signals/send")
async def send(form: Posted, connections: Pooled) -> Response:
    """Send a signal to whoever waits for its name and key, now or until it expires."""
    fields = {name: form.text(name) for name in ("name", "key", "payload", "keep", "once")}
    errors: dict[str, str] = {}
    payload, keep = None, signals.KEEP
    try:
        payload = json_text(read_json(fields["payload"])) if fields["payload"].strip() else None
    except (ValueError, BrokerError) as fault:
        errors["payload"] = str(fault)
    try:
        keep = timedelta(seconds=min(read_seconds(fields["keep"]), MOST_KEEP_SECONDS))
    except ValueError as fault:
        errors["keep"] = str(fault)
    if not errors:
        text = "\0".join((fields["name"], fields["key"], payload or ""))
        once = f"console {fields['once'][:64]} {hashlib.sha256(text.encode(errors='replace')).hexdigest()[:16]}"
        try:
            with translate_faults():
                async with connections.borrow() as connection:
                    await signals.send_signal(
                        connection, fields["name"], fields["key"], payload, idempotency_key=once, keep=keep
                    )
        except DatabaseFault:
            raise
        except BrokerError as fault:
            errors["name"] = str(fault)
        else:
            said = f"The signal {fields['name']} is sent. Whoever waits for it takes it from the list."
            return form.done(link("/signals"), said)
    status = HTTPStatus.BAD_REQUEST
    return form.screen.render("send_signal.html", title="Send a signal", status=status, fields=fields, errors=errors)
