"""The events that the broker writes, each with why in its `meta`: the turn, and each condition with its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model import JSON, Emitted

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.playbook.model import Step


def emit_step_started(draft: Draft, step: Step, visit: int, arcs: tuple[int, ...]) -> int:
    """A visit begins; `arcs` led to it. Returns the event's place in the turn."""
    meta: dict[str, JSON] = {"turn": draft.turn.number, "arcs": list(arcs)}
    return _emit(draft, Emitted("step_started", "STARTED", step.name, visit, step.type, meta))


def emit_step_completed(draft: Draft, step: Step, visit: int, conditions: list[dict[str, JSON]]) -> int:
    """A visit is done; `conditions` are the `when`s that were read, each with its outcome and where it led."""
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    if conditions:
        meta["next"] = conditions
    return _emit(draft, Emitted("step_completed", "COMPLETED", step.name, visit, step.type, meta))


def emit_step_failed(
    draft: Draft,
    step: Step,
    visit: int,
    error: dict[str, JSON],
    conditions: list[dict[str, JSON]] | None = None,
    spent: list[str] | None = None,
) -> int:
    """A visit failed for good.

    `conditions` where its `next` decides all the same; `spent` names the joins for which its token was spent, where
    the failure fails nothing.
    """
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    if conditions:
        meta["next"] = conditions
    if spent:
        meta["spent"] = spent
    return _emit(draft, Emitted("step_failed", "FAILED", step.name, visit, step.type, meta, None, error))


def emit_action_retry(
    draft: Draft, step: Step, visit: int, error: JSON, attempt: int, max_attempts: int, delay: float
) -> int:
    """A failed action is tried again after `delay` seconds; `attempt` (from 1) is the one that failed."""
    meta: dict[str, JSON] = {
        "turn": draft.turn.number,
        "attempt": attempt,
        "max_attempts": max_attempts,
        "delay_seconds": delay,
    }
    return _emit(draft, Emitted("action_retry", "PENDING", step.name, visit, step.type, meta, None, error))


def emit_iterator_started(draft: Draft, step: Step, visit: int, total: int) -> int:
    """An iterator that the broker runs has chosen its items."""
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    context: dict[str, JSON] = {"total": total}
    return _emit(draft, Emitted("iterator_started", "STARTED", step.name, visit, step.type, meta, context=context))


def emit_iteration(draft: Draft, step: Step, visit: int, event: tuple[str, str], index: int, error: JSON = None) -> int:
    """An item of an iterator began or ended; `event` is its type and status, `index` the item's place from 0."""
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    context: dict[str, JSON] = {"index": index}
    return _emit(draft, Emitted(*event, step.name, visit, step.type, meta, None, error, context))


def emit_execution_end(draft: Draft, event_type: str, status: str, result: JSON, error: JSON) -> int:
    """The execution is over: execution_complete, execution_failed or execution_cancelled."""
    meta: dict[str, JSON] = {"turn": draft.turn.number}
    if draft.end is not None:
        meta["end_reached"] = True
    return _emit(draft, Emitted(event_type, status, None, 0, "playbook", meta, result, error))


def _emit(draft: Draft, event: Emitted) -> int:
    draft.events.append(event)
    return len(draft.events) - 1
