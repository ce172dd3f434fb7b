"""Reads events for the reference, and names the effects of decisions as it does; without rules of the core."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from noetl_broker.broker.model.decision import Decision, JobRow
from noetl_broker.broker.model.effects import (
    ChildStarted,
    ChildUndoAbandoned,
    ChildUndone,
    EventPosted,
    JobChanged,
    SignalSent,
    UndoEnded,
    UndoNoted,
    WaitOpened,
    WaitReopened,
)
from noetl_broker.broker.model.event import Emitted
from noetl_broker.broker.model.stops import stops_of
from tests.simulation.reference_model import Effect, ReferenceEvent, Row
from tests.simulation.reference_undo import UNDO

# The kinds of events of the reference, by event type.
KINDS = {
    "execution_start": "start",
    "execution_started": "start",
    "playbook_started": "start",
    "execution_cancel": "cancel",
    "execution_deadline": "deadline",
    "action_completed": "completed",
    "action_failed": "failed",
    "action_error": "failed",
    "execution_complete": "completed",
    "execution_failed": "failed",
    "iterator_completed": "gathered",
    "iteration_due": "more",
    "child_due": "due",
    "timer_due": "timer",
    "approval_decided": "decided",
    "execution_signal": "signal",
    "execution_pause": "pause",
    "execution_resume": "resume",
    "place_free": "slot",
    "execution_abandon": "abandon",
    "execution_undo": "undo",
    "undo_settled": "settled",
}
STATUS_CHANGES = frozenset(
    {"execution_paused", "execution_resumed", "execution_queued", "execution_admitted", "execution_compensating"}
)
LATE = frozenset({"execution_late", "step_late"})
OF_UNDO = frozenset({"compensation_started", "compensation_completed", "compensation_failed"})
UNDO_ENDS = frozenset({"execution_undone", "execution_undo_failed"})
ENDS = frozenset({"execution_complete", "execution_failed", "execution_cancelled"})


def reference_event(event: Row, leases: int) -> ReferenceEvent | None:
    """Return an event for the reference, read without the broker's code; None if it needs no decision."""
    kind = KINDS.get(event["event_type"].lower())
    if kind is None:
        return None
    meta = event["meta"] or {}
    if kind in {"pause", "resume", "slot"}:
        cause = "parent" if "parent_execution_id" in (event["context"] or {}) else "operator"
        return ReferenceEvent(kind, cause, lease=meta.get("number"))
    node, index = "", meta.get("index")
    if kind == "undo":
        return ReferenceEvent(kind, value=event["context"])
    if not event["event_type"].lower().startswith(("execution_start", "execution_cancel", "execution_deadline")):
        node = (event["node_id"] or "").partition(":")[2].removesuffix(UNDO)
        node, dot, own = node.partition(".")
        if dot:
            index = int(own)
        node = node.removesuffix("#1")
    if index is not None:
        kind = f"item_{kind}"
    value = (event["context"] or {}).get("workload") or {} if kind == "start" else event["result"]
    if kind in {"failed", "item_failed"}:
        value = event["error"] or {}
    if kind == "timer" and event["context"]["purpose"] == "late":
        kind = "late"
    if kind == "timer":
        value = {"waited_until": event["context"]["due_at"]}
    if kind == "signal":
        value = event["context"]
    if kind == "decided":
        value = _decision_in(event["context"])
    return ReferenceEvent(
        kind, node, index, value, meta.get("retryable") is not False, meta.get("attempt"), leases, "queue_id" in meta,
        is_undo=(event["node_id"] or "").endswith(UNDO),
        undo_child=meta["child_execution_id"] if meta.get("undo") is True else None,
        by_child="child_execution_id" in meta,
    )  # fmt: skip


def _decision_in(context: Row) -> dict[str, Any]:
    """Return the result of an approval, with its keys as jsonb orders them."""
    result = {**context["form"], **{name: context[name] for name in ("approved", "by", "at")}}
    return {name: result[name] for name in sorted(result, key=lambda name: (len(name), name))}


def effects_of(decision: Decision) -> Iterator[Effect]:
    """Yield the effects of a decision of the core, as the reference names them."""
    for event in decision.events:
        yield from _of_event(event)
    yield from _of_work(decision)
    for row in decision.of(UndoNoted):
        child = row.children[-1] if row.children else None
        yield Effect("undo", _node_of(row, undo=True)[: -len(UNDO)], [row.status, child])
    for change in decision.of(JobChanged):
        if change.undo and change.status in {"retry", "delegated"}:
            yield Effect("undo_retry", _node_of(change, undo=True), float(change.delay))
    for wait in decision.of(WaitOpened):
        detail = [[*wait.names], wait.key, wait.since] if wait.kind == "signal" else None
        yield Effect("wait", _node(wait.step, wait.visit), detail)
    for sent in decision.of(SignalSent):
        yield Effect("signal", _node(sent.step, sent.visit), [sent.name, sent.key, sent.payload])
    if not any(event.type in ENDS or event.type == "execution_compensating" for event in decision.events):
        cancelled = stops_of(decision).cancelled
        reopened = [(wait.step, wait.visit) for wait in decision.of(WaitReopened)]
        yield from (Effect("reopen", _node(*visit)) for visit in reopened if visit not in cancelled)
    for post in decision.of(EventPosted):
        yield Effect("post", _node(post.step, post.visit), post.type)


def _of_event(event: Emitted) -> Iterator[Effect]:
    node = _node(event.step, event.visit)
    if event.type in OF_UNDO and event.context:
        node = f"{node}.{event.context['index']}"
    yield Effect(event.type, node, _detail(event))
    if event.type in ENDS | UNDO_ENDS and "compensation" in (event.meta or {}):
        yield Effect("compensation", "", (event.meta or {})["compensation"])


def _of_work(decision: Decision) -> Iterator[Effect]:
    for job in decision.jobs:
        if not job.delegated:
            inputs = job.action.get("args", {})
            detail = inputs if job.item_index is None or job.undo else (job.item_index, None, inputs)
            yield Effect("job", _node_of(job, undo=job.undo), detail)
            node = _node_of(job, undo=True)
            yield Effect("place", node if job.undo else node[: -len(UNDO)], [job.pool or "default", job.priority])
    for child in decision.of(ChildStarted):
        called = (None if child.undo else child.item_index, child.path, child.payload)
        yield Effect("child", _node_of(child, undo=child.undo), called)
    for asked in decision.of(ChildUndone):
        if "answer" in asked.context:
            yield Effect("undo child", "", asked.child_execution_id)
    for given_up in decision.of(ChildUndoAbandoned):
        yield Effect("abandon child", "", given_up.child_execution_id)
    for ended in decision.of(UndoEnded):
        yield Effect("undo ended", "", [ended.answer, ended.error is None])


def _node(step: str | None, visit: int) -> str:
    return "" if step is None else step if visit == 1 else f"{step}#{visit}"


def _node_of(work: JobRow | ChildStarted | UndoNoted | JobChanged, *, undo: bool) -> str:
    """Return the node of a visit, or of an undo, which names an item."""
    node = _node(work.step, work.visit)
    if not undo:
        return node
    return (node if work.item_index is None else f"{node}.{work.item_index}") + UNDO


def _detail(event: Emitted) -> Any:
    if event.type == "step_failed":
        caught = (event.meta or {}).get("status") == "CAUGHT"
        return [caught, event.result] if caught or event.result is not None else None
    if event.type == "action_retry" and event.meta:
        delay = float(event.meta["delay_seconds"])
        return [event.context["index"], delay] if event.context else delay
    if event.type == "iteration_completed" and event.result is not None and event.context:
        return [event.context["index"], event.result]
    if event.type == "iterator_started" and event.context:
        return event.context["total"]
    if event.type in STATUS_CHANGES | OF_UNDO | LATE:
        return None
    return event.context["index"] if event.context else event.result
