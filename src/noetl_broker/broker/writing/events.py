"""The events that a rule writes; `meta` has the turn and the conditions with their outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.model.event import Emitted
from noetl_broker.broker.model.values import JSON
from noetl_broker.template import wrap

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.playbook.model import Step


STATUS_OF = {
    "execution_queued": "QUEUED", "execution_admitted": "RUNNING",
    "execution_paused": "PAUSED", "execution_resumed": "RUNNING",
}  # fmt: skip


UNKNOWN_STEP = "unknown"  # the node type of a step that the playbook lacks
CAUGHT = "CAUGHT"  # the `status` in the meta of a step_failed that a `catch` handled


class CatchRead(NamedTuple):
    """The outcome of the `catch` of a failed visit: its conditions with their outcomes, and the entry that was taken.

    `entry` counts from 0; None: no entry was true. `to` are the targets of that entry. `result` is the result of
    the action, which had completed.
    """

    conditions: list[dict[str, JSON]]
    entry: int | None = None
    to: list[str] = []  # noqa: RUF012 - never changed in place
    result: JSON = None


def emit_step_started(draft: Draft, step: Step, visit: int, arcs: tuple[int, ...]) -> int:
    """A visit begins; `arcs` led to it. Returns the position of the event in the turn."""
    meta: dict[str, JSON] = {"turn": draft.turn.number, "arcs": list(arcs)}
    return _emit(draft, Emitted("step_started", "STARTED", step.name, visit, step.type, meta))


def emit_step_completed(
    draft: Draft, step: Step, visit: int, conditions: list[dict[str, JSON]], result: JSON = None
) -> int:
    """A visit completed; `conditions` are the evaluated `when`s, each with its outcome and its targets.

    `result` is set for a visit that the broker itself completes.
    """
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    if conditions:
        meta["next"] = conditions
    return _emit(draft, Emitted("step_completed", "COMPLETED", step.name, visit, step.type, meta, result))


def emit_step_failed(
    draft: Draft,
    step: Step,
    visit: int,
    error: dict[str, JSON],
    conditions: list[dict[str, JSON]] | None = None,
    spent: list[str] | None = None,
    catch: CatchRead | None = None,
) -> int:
    """A visit failed for good.

    `conditions`: its `next` was evaluated, because `on_error` is `continue`. `spent`: the failure has no effect: the
    token was spent for these joins. `catch` was read before.
    """
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    result = None
    if conditions:
        meta["next"] = conditions
    if spent:
        meta["spent"] = spent
    if catch is not None:
        result = catch.result
        if catch.conditions:
            meta["catch"] = catch.conditions
        if catch.entry is not None:
            meta |= {"status": CAUGHT, "caught": {"entry": catch.entry, "to": catch.to}}
    return _emit(draft, Emitted("step_failed", "FAILED", step.name, visit, step.type, meta, result, error))


def emit_step_cancelled(draft: Draft, step: Step, visit: int, spent: list[str]) -> int:
    """A visit was cancelled without a result: its token was spent for the joins `spent`."""
    meta: dict[str, JSON] = {"turn": draft.turn.number, "spent": spent}
    return _emit(draft, Emitted("step_cancelled", "CANCELLED", step.name, visit, step.type, meta))


def emit_action_retry(
    draft: Draft, step: Step, visit: int, error: JSON, attempts: tuple[int, int, float], *, index: int | None = None
) -> int:
    """A failed action is retried. `attempts`: the failed one (from 1), how many there may be, the delay in seconds.

    `index` is the index of an iterator's item.
    """
    attempt, max_attempts, delay = attempts
    meta: dict[str, JSON] = {
        "turn": draft.turn.number,
        "attempt": attempt,
        "max_attempts": max_attempts,
        "delay_seconds": delay,
    }
    context: dict[str, JSON] | None = None if index is None else {"index": index}
    return _emit(draft, Emitted("action_retry", "PENDING", step.name, visit, step.type, meta, None, error, context))


def emit_iterator_started(draft: Draft, step: Step, visit: int, total: int, taken: int = 0) -> int:
    """The broker has chosen the items of an iterator; `taken` have results from the execution that it is a fork of."""
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    context: dict[str, JSON] = {"total": total, "taken": taken} if taken else {"total": total}
    return _emit(draft, Emitted("iterator_started", "STARTED", step.name, visit, step.type, meta, context=context))


def emit_iteration(draft: Draft, step: Step, visit: int, event: tuple[str, str], index: int, error: JSON = None) -> int:
    """An item of an iterator began or ended; `event` is the event's type and status, `index` counts from 0."""
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    context: dict[str, JSON] = {"index": index}
    return _emit(draft, Emitted(*event, step.name, visit, step.type, meta, None, error, context))


def emit_caught_iteration(
    draft: Draft, step: Step, visit: int, index: int, error: JSON, caught: tuple[int, JSON]
) -> int:
    """A failed item counts as done; `caught` is the position of the entry of `catch` that it fits, and the result."""
    meta: dict[str, JSON] = {"turn": draft.turn.number, "caught": caught[0]}
    context: dict[str, JSON] = {"index": index}
    event = ("iteration_completed", "COMPLETED", step.name, visit, step.type)
    result = {"data": None} if caught[1] is None else wrap(caught[1])  # the event has a result
    return _emit(draft, Emitted(*event, meta, result, error, context))


def emit_execution_end(draft: Draft, event_type: str, status: str, result: JSON, error: JSON) -> int:
    """The execution ended: execution_complete, execution_failed or execution_cancelled."""
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    if draft.state.end is not None:
        meta["end_reached"] = True
    if draft.state.compensation is not None or (draft.state.unknown and event_type != "execution_complete"):
        meta["compensation"] = count_undos(draft)
    return _emit(draft, Emitted(event_type, status, None, 0, "playbook", meta, result, error))


def count_undos(draft: Draft) -> dict[str, JSON]:
    """The numbers of undos of an execution that ends: done, failed, unknown, and not tried (`left`)."""
    compensation = draft.state.compensation
    done, failed = (0, 0) if compensation is None else (compensation.done, compensation.failed)
    return {"done": done, "failed": failed, "unknown": draft.state.unknown, "left": draft.state.undo - failed}


def emit_undo_end(draft: Draft, error: JSON) -> int:
    """An execution that had ended has undone what it did, or could not (`error`). The event has its status."""
    meta: dict[str, JSON] = {"turn": draft.turn.number, "compensation": count_undos(draft)}
    name = "execution_undone" if error is None else "execution_undo_failed"
    return _emit(draft, Emitted(name, draft.state.status, meta=meta, error=error))


def emit_compensating(draft: Draft, error: JSON) -> int:
    """The execution failed or was cancelled, and undoes what its actions did."""
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    return _emit(draft, Emitted("execution_compensating", "COMPENSATING", meta=meta, error=error))


def emit_compensation(draft: Draft, what: str, name: str, visit: int, index: int | None, error: JSON = None) -> int:
    """The undo of a visit of the step `name`, or of an item, was `started`, `completed`, or `failed`."""
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    context: dict[str, JSON] | None = None if index is None else {"index": index}
    step = draft.playbook.steps.get(name)
    node_type = UNKNOWN_STEP if step is None else step.type
    event = Emitted(f"compensation_{what}", what.upper(), name, visit, node_type, meta, None, error, context)
    return _emit(draft, event)


def emit_status(draft: Draft, event_type: str, context: dict[str, JSON] | None = None) -> int:
    """The execution was queued, admitted, paused or resumed."""
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    return _emit(draft, Emitted(event_type, STATUS_OF[event_type], None, 0, "playbook", meta, context=context or None))


def emit_late(draft: Draft, step: Step | None, visit: int, since: str) -> None:
    """The execution, or a visit of the step, is late since this moment."""
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    late = Emitted("execution_late", draft.state.status, None, 0, "playbook", meta, context={"since": since})
    if step is not None:
        late = late._replace(type="step_late", status="RUNNING", step=step.name, visit=visit, node_type=step.type)
    _emit(draft, late)


def node_name_of(event: Emitted) -> str | None:
    """The step; `step[index]` where the event has the result of an item, not of the step."""
    if event.type == "iteration_completed" and event.result is not None and event.context is not None:
        return f"{event.step}[{event.context['index']}]"
    return event.step


def _emit(draft: Draft, event: Emitted) -> int:
    draft.writes.events.append(event)
    return len(draft.writes.events) - 1
