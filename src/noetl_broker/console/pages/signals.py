"""Signals: visits that wait for one, the kept signals, and a form that sends one."""

from __future__ import annotations

import secrets
from typing import Final

from fastapi import APIRouter, Response

from noetl_broker.console.pages.screen import Produced, Producing, Shown
from noetl_broker.errors import BrokerError
from noetl_broker.service import waits as service
from noetl_broker.service.models.base import Role

router = APIRouter()

KEEP: Final = "7d"  # as the form shows it
MOST_WAITS: Final = 50  # that the page lists


@router.get("/signals")
async def list_signals(screen: Shown) -> Response:
    """The waits for a signal, and the kept signals, the newest first."""
    listed = await screen.rows(service.list_signals, "name", "key")
    asked = screen.asked("name", "key")
    waits = (await screen.ask(service.list_signal_waits, limit=MOST_WAITS + 1, **asked))["items"]
    more = {"waits": waits[:MOST_WAITS], "has_more_waits": len(waits) > MOST_WAITS}
    return screen.render("signals.html", title="Signals", changes="all", **listed, **more)


@router.get("/signals/send")
async def show_form(screen: Producing) -> Response:
    """The form, with a key of its own: a second click on its button sends nothing."""
    fields = {"payload": "", "keep_seconds": KEEP, "once": secrets.token_urlsafe(16), **screen.asked("name", "key")}
    return screen.form("send_signal.html", "Send a signal", fields)


@router.post("/signals/send")
async def send(form: Produced) -> Response:
    """Send a signal to whoever waits for its name and key, now or until it expires."""
    name, key = form.text("name"), form.text("key")
    try:
        once = form.once(form.text("once"), name, key, form.text("payload"))
        await form.ask(service.send_signal, name=name, key=key, idempotency_key=once)
    except BrokerError as fault:
        fields = form.texts("name", "key", "payload", "keep_seconds", "once")
        return form.screen.form("send_signal.html", "Send a signal", fields, fault)
    back = "/signals" if form.screen.may(Role.VIEWER) else "/signals/send"
    return form.done(back, f"The signal {name} is sent. Whoever waits for it takes it from the list.")
