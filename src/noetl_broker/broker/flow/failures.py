"""Failures: error documents; a failed step, a failed or cancelled execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.flow.on_failure import start_on_failure
from noetl_broker.broker.model.decision import Decision, ExecutionEnd, StepRow
from noetl_broker.broker.model.effects import WorkCancelled
from noetl_broker.broker.model.event import Emitted, Event, Turn
from noetl_broker.broker.model.limits import ERROR
from noetl_broker.broker.model.values import JSON, as_stored
from noetl_broker.broker.state.state import CANCELLED, FAILED, ExecutionState, InlineResult
from noetl_broker.broker.state.trail import SpentFailure
from noetl_broker.broker.undo.begin import begin_compensation
from noetl_broker.broker.undo.rows import SUCCESSES, set_undo_status
from noetl_broker.broker.writing.events import CatchRead, emit_execution_end, emit_step_failed
from noetl_broker.broker.writing.queue import time_limit_of
from noetl_broker.broker.writing.workflow import track_cancelled, track_ended
from noetl_broker.template import StepResult, wrap

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.state.state import Token
    from noetl_broker.playbook.model import Step
    from noetl_broker.template import Tree


class Uncaught(Exception):
    """A visit fails for good in the turn of its beginning; its `catch` was read, and does not handle this error."""

    def __init__(self, error: dict[str, JSON], catch: CatchRead | None, data: JSON) -> None:
        """`catch` is what the `catch` came to; None: one of its own templates failed. `data` stays the step's."""
        super().__init__(error["message"])
        self.error, self.catch, self.data = error, catch, data


def fail_step(
    draft: Draft,
    step: Step,
    token: Token,
    error: dict[str, JSON],
    catch: CatchRead | None = None,
    data: JSON = None,
) -> None:
    """Fail a step for good, and the execution with it; the failure of a spent token is only recorded.

    `catch` was read and did not handle the failure. `data` stays the step's data.
    """
    lost = spent_joins(draft, step, token.spent)
    ordinal = emit_step_failed(draft, step, token.visit, error, spent=lost, catch=catch)
    track_failed(draft, step, token.visit, ordinal)
    if not lost:
        fail_execution(draft, error)
        return
    draft.templates.end_visit((step.name, token.visit), StepResult(data, "FAILED", as_stored(error)))
    draft.trail.append(SpentFailure(step.name, token.visit, lost))


def track_failed(draft: Draft, step: Step, visit: int, ordinal: int) -> None:
    """The event ended a visit that failed. Its step_failed has the result of the turn, unless an undo reads that."""
    if keeps_item(draft, step):
        track_ended(draft, step, "FAILED", ordinal, visit, ordinal)
    else:
        draft.writes.carrier = ordinal
        track_ended(draft, step, "FAILED", ordinal, visit)


def keeps_item(draft: Draft, step: Step) -> bool:
    """Whether the turn has the result of an item that succeeded and has a `compensate`."""
    event, iteration = draft.event, step.iteration
    is_success = event.item_index is not None and event.kind in SUCCESSES
    return is_success and iteration is not None and iteration.task.compensate is not None


def fail_entry(
    draft: Draft,
    step: Step,
    visit: int,
    error: dict[str, JSON],
    spent: frozenset[str],
    catch: CatchRead | None = None,
    data: JSON = None,
) -> None:
    """Fail a step that a token cannot enter or pass: as `fail_step`, but no event has a result of it."""
    lost = spent_joins(draft, step, spent)
    if not lost:
        track_ended(draft, step, "FAILED", emit_step_failed(draft, step, visit, error, catch=catch))
        fail_execution(draft, error)
        return
    if data is not None:
        catch = (catch or CatchRead([]))._replace(result=wrap(data))
    ordinal = emit_step_failed(draft, step, visit, error, spent=lost, catch=catch)
    track_ended(draft, step, "FAILED", ordinal, visit, ordinal)
    draft.templates.make_result((step.name, visit), InlineResult(data, as_stored(error)))
    draft.trail.append(SpentFailure(step.name, visit, lost))


def spent_joins(draft: Draft, step: Step, spent: frozenset[str]) -> list[str]:
    """The joins that no longer wait for the token and that its step can reach: they make its failure harmless."""
    if not spent:
        return []
    return sorted(join for join in spent if draft.playbook.graph.can_reach(step.name, join))


def fail_execution(draft: Draft, error: dict[str, JSON]) -> None:
    """End the execution as failed: jobs that no worker holds and open visits are cancelled."""
    _end(draft, "execution_failed", FAILED, error)


def cancel_execution(draft: Draft) -> None:
    """End the execution as cancelled; the given reason is the error."""
    _end(draft, "execution_cancelled", CANCELLED, _cancel_error(draft.event))


def end_as_cancelled(draft: Draft, error: dict[str, JSON]) -> None:
    """End the execution as cancelled, with this error."""
    _end(draft, "execution_cancelled", CANCELLED, error)


def cancel_without_playbook(state: ExecutionState, event: Event, turn: Turn) -> tuple[ExecutionState, Decision]:
    """Cancel a running execution whose playbook is gone."""
    error = _cancel_error(event)
    meta: dict[str, JSON] = {"turn": turn.number}
    emitted = Emitted("execution_cancelled", CANCELLED, meta=meta, error=error)
    steps = dict.fromkeys(step for step, _ in state.tokens)
    rows = tuple(StepRow(step, CANCELLED, state.repeats.get(step, 1), ended=0) for step in steps)
    ended = state._replace(status=CANCELLED, tokens={}, waiting={}, hold=None)
    return ended, Decision(
        "decided", events=(emitted,), rows=rows, ended=ExecutionEnd(CANCELLED, None, error), effects=(WorkCancelled(),)
    )


def _cancel_error(event: Event) -> dict[str, JSON]:
    reason = event.context.get("reason") if isinstance(event.context, dict) else None
    return {"message": str(reason)[: ERROR.message_chars] if reason else "cancelled"}


def pass_deadline(draft: Draft) -> None:
    """Fail the execution: the time of `metadata.deadline` is over."""
    seconds = draft.playbook.deadline
    of = f" of {seconds:g} s" if isinstance(seconds, float) else ""
    fail_execution(draft, {"message": f"the deadline{of} passed", "type": "deadline"})


def deadline_of(draft: Draft) -> float | None:
    """The seconds of `metadata.deadline`. Raises TemplateError if its template fails or gives no duration."""
    return _time_limit(draft, "deadline", draft.playbook.deadline)


def late_after_of(draft: Draft) -> float | None:
    """The seconds of `metadata.late_after`. Raises TemplateError if its template fails or gives no duration."""
    return _time_limit(draft, "late_after", draft.playbook.late_after)


def _time_limit(draft: Draft, key: str, tree: float | Tree | None) -> float | None:
    """The seconds of a time limit of an execution, whose template reads its workload. Raises TemplateError."""
    if tree is None or isinstance(tree, float):
        return tree
    return time_limit_of(draft, key, tree, draft.templates.scope({}, None))


def _end(draft: Draft, event_type: str, status: str, error: dict[str, JSON]) -> None:
    """End the execution, or let it undo first what its actions did."""
    if draft.state.compensation is not None:
        return
    if (draft.state.undo or draft.playbook.undoes) and begin_compensation(draft, status, error):
        return
    draft.stopped_state = draft.freeze()
    end_execution(draft, event_type, status, error)
    draft.state.tokens.clear()
    draft.state.waiting.clear()
    draft.arrivals.clear()
    draft.add(WorkCancelled())


def end_execution(
    draft: Draft, event_type: str, status: str, error: dict[str, JSON] | None, result: JSON = None
) -> None:
    """Write the end of the execution; visits that are open are cancelled."""
    ordinal = emit_execution_end(draft, event_type, status, result, error)
    track_cancelled(draft, ordinal)
    draft.state.status = status
    answer = None if result is None else wrap(result)
    starts = start_on_failure(draft, error or {}) if status == FAILED else None
    draft.writes.ended = ExecutionEnd(status, result, error, answer, draft.state.undo > 0, starts)
    if draft.state.unknown and draft.state.compensation is None:
        set_undo_status(draft)
