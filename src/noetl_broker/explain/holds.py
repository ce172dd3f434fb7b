"""Explains why an execution does not run on: it is paused or queued. Also what it keeps, and its deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.holds.pauses import OPERATOR
from noetl_broker.broker.state.state import PAUSED, QUEUED
from noetl_broker.explain.reason import Reason
from noetl_broker.explain.slots import explain_slots
from noetl_broker.node_ids import visit_name
from noetl_broker.template.durations import moment_text
from noetl_broker.text import join_names, span

if TYPE_CHECKING:
    from datetime import datetime

    from noetl_broker.broker.model.values import JSON
    from noetl_broker.broker.state.state import ExecutionState
    from noetl_broker.explain.facts import Facts
    from noetl_broker.history.record import History

BEGAN = {PAUSED: "execution_paused", QUEUED: "execution_queued"}


def explain_hold(history: History, state: ExecutionState, facts: Facts) -> list[Reason]:
    """Why the execution is paused or queued, since when, and what ends it; nothing of a running one."""
    if state.hold is None or state.status not in BEGAN:
        return []
    at, context = _beginning(history, BEGAN[state.status])
    since = "" if at is None else f" {span((facts.read_at - at).total_seconds())} ago"
    why = f": {context['reason']}" if context.get("reason") else ""
    parent = context.get("parent_execution_id")
    if state.status == QUEUED and any(slot.number for slot in state.slots):
        says = f"it was queued{since}"
    elif state.hold.delayed:
        says = f"it was queued{since}{why} (noetl-broker cancel {facts.execution_id} ends it)"
    elif state.status == QUEUED:
        says = f"it was queued{since}{why} (noetl-broker resume --path {facts.path} admits it)"
    elif OPERATOR in state.hold.causes or parent is None:
        says = f"it was paused{since}{why} (noetl-broker resume {facts.execution_id})"
    else:
        says = f"it was paused with its parent {parent}{since}{why} (noetl-broker resume {parent})"
    kept = explain_slots(facts) if state.status == QUEUED else []
    kept += [
        reason for step in dict.fromkeys(arrival.step for arrival in state.hold.kept) for reason in kept_at(state, step)
    ]
    due = [visit_name(token.step, token.visit) for token in state.tokens.values() if token.due]
    if due:
        kept.append(Reason("due", f"items or children of {join_names(due)} start then", {"visits": due}))
    about: dict[str, JSON] = {"since": at, "reason": context.get("reason"), "causes": list(state.hold.causes)}
    return [Reason(state.status.lower(), says, about, tuple(kept))]


def explain_deadline(facts: Facts) -> list[Reason]:
    """When `metadata.deadline` fails the execution; nothing without one."""
    if facts.deadline is None:
        return []
    seconds = (facts.deadline - facts.read_at).total_seconds()
    says = f"it fails in {span(seconds)}, at {moment_text(facts.deadline)} (metadata.deadline)"
    if seconds <= 0:
        says = f"its deadline passed {span(-seconds)} ago: no broker has fired its timer yet"
    return [Reason("deadline", says, {"due_at": facts.deadline})]


def explain_late(history: History, state: ExecutionState) -> list[Reason]:
    """Since when the execution, or an open visit, is late."""
    late = {(token.step, token.visit) for token in state.tokens.values() if token.late}
    reasons = []
    for turn in history.turns:
        for event in turn.events:
            since = event.context.get("since") if isinstance(event.context, dict) else None
            if event.type == "execution_late" and state.late:
                reasons.append(Reason("late", f"it is late since {since} (metadata.late_after)", {"since": since}))
            elif event.type == "step_late" and (event.step or "", event.visit) in late:
                name = visit_name(event.step or "", event.visit)
                says = f"{name} is late since {since} (late_after)"
                reasons.append(Reason("late", says, {"since": since, "visit": name}))
    return reasons


def kept_at(state: ExecutionState, step: str) -> list[Reason]:
    """The tokens that enter the step when the execution runs on."""
    count = 0 if state.hold is None else sum(arrival.step == step for arrival in state.hold.kept)
    if not count:
        return []
    tokens = "a token is kept" if count == 1 else f"{count} tokens are kept"
    says = f"{tokens} that will enter {step} when the execution runs on"
    return [Reason("kept", says, {"step": step, "tokens": count})]


def _beginning(history: History, event_type: str) -> tuple[datetime | None, dict[str, JSON]]:
    """When the last event of this type was written, and its context."""
    for turn in reversed(history.turns):
        for event in turn.events:
            if event.type == event_type:
                return turn.turn.at, event.context or {}
    return None, {}
