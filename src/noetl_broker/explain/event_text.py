"""The detail of an event as text, from its row."""

from __future__ import annotations

from typing import Any

from noetl_broker.broker.model.event_types import (
    APPROVAL_DECIDED,
    EXECUTION_ABANDON,
    EXECUTION_CANCEL,
    EXECUTION_PAUSE,
    EXECUTION_RESUME,
    EXECUTION_SIGNAL,
    EXECUTION_UNDO,
    TIMER_DUE,
    UNDO_SETTLED,
)
from noetl_broker.explain.error_text import attempt_text, error_text
from noetl_broker.text import decider, short_json, span

# The detail of an event, by a key of its context.
DETAIL_IN = {
    EXECUTION_ABANDON: "reason",
    EXECUTION_CANCEL: "reason",
    EXECUTION_PAUSE: "reason",
    "execution_paused": "reason",
    "execution_queued": "reason",
    TIMER_DUE: "purpose",
    UNDO_SETTLED: "reason",
}
OF_PEOPLE = {
    *(EXECUTION_ABANDON, EXECUTION_CANCEL, EXECUTION_PAUSE, EXECUTION_RESUME, EXECUTION_SIGNAL, EXECUTION_UNDO),
    UNDO_SETTLED,
}


def event_detail(event: dict[str, Any]) -> str | None:
    """What its context says: an item, a decision, a reason, an error with its attempt; None: nothing."""
    meta = event["meta"] if isinstance(event["meta"], dict) else {}
    parts = []
    context = event["context"] if isinstance(event["context"], dict) else {}
    if event["event_type"].startswith("iteration_") and isinstance(context.get("index"), int):
        parts.append(f"item {context['index']}")
    if event["event_type"] == APPROVAL_DECIDED and isinstance(context.get("approved"), bool):
        parts.append(f"{'approved' if context['approved'] else 'rejected'} by {decider(context)}")
    if event["event_type"] == EXECUTION_SIGNAL and isinstance(context.get("name"), str):
        parts.append(_signal(context, str(event["execution_id"])))
    detail = context.get(DETAIL_IN.get(event["event_type"], ""))
    if detail:
        parts.append(str(detail))
    if event["event_type"] in OF_PEOPLE and context.get("by"):
        parts.append(f"by {context['by']}")
    if event["error"] is not None:
        parts.append(error_text(event["error"]))
    if isinstance(meta.get("delay_seconds"), (int, float)):
        parts.append(f"again in {span(meta['delay_seconds'])}")
    if event["error"] is not None or meta.get("attempt") != 1:
        parts.append(attempt_text(meta.get("attempt"), meta.get("max_attempts")))
    return ", ".join(filter(None, parts)) or None


def _signal(context: dict[str, Any], execution_id: str) -> str:
    """Give the name of a signal, its key (unless that is the execution), and its payload (unless it has none)."""
    of = "" if context.get("key") in {None, execution_id} else f" of {context['key']}"
    payload = "" if context.get("payload") is None else f": {short_json(context['payload'])}"
    return f"{context['name']}{of}{payload}"
