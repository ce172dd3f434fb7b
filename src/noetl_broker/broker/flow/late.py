"""Late executions and visits: what says so, and the timers of `late_after`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from noetl_broker.broker.flow.on_failure import render_args
from noetl_broker.broker.model.effects import LateTimerEnded, OnFailureStart, ReportedLate, TimerSet
from noetl_broker.broker.model.event_types import TIMER_DUE
from noetl_broker.broker.writing.events import emit_late
from noetl_broker.broker.writing.queue import time_limit_of
from noetl_broker.template.durations import after, moment_text

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.event import Event
    from noetl_broker.broker.model.values import JSON
    from noetl_broker.broker.state.state import Arrival, ExecutionState, RenderedInputs
    from noetl_broker.playbook.model import Playbook, Step

LATE: Final = "late"  # the purpose of a timer


def is_late_event(event: Event) -> bool:
    """Whether the event says that a `late_after` passed."""
    return event.kind == TIMER_DUE and isinstance(event.context, dict) and event.context.get("purpose") == LATE


def may_be_late(playbook: Playbook, state: ExecutionState) -> bool:
    """Whether the execution has a `late_after`, and no event says yet that it passed."""
    return playbook.late_after is not None and not state.late and (state.hold is None or state.hold.admitted)


def seconds_until_late(draft: Draft, step: Step, given: RenderedInputs, arrival: Arrival) -> float | None:
    """The `late_after` of a visit in seconds. Raises TemplateError if its template fails or gives no duration."""
    if step.late_after is None:
        return None
    return time_limit_of(draft, "late_after", step.late_after, draft.templates.scope(given.values, arrival.result))


def set_late_timer(draft: Draft, step: Step, visit: int, seconds: float) -> None:
    """Count the time of a visit that began in this turn, unless it has ended in it."""
    if (step.name, visit) in draft.state.tokens:
        draft.add(TimerSet(step.name, visit, LATE, after(draft.turn.at, seconds)))


def report_late(draft: Draft) -> None:
    """`timer_due`: an event says that the execution or the visit is late. `metadata.on_late` starts its playbook."""
    context = draft.event.context if isinstance(draft.event.context, dict) else {}
    due = context.get("due_at")
    since = due if isinstance(due, str) else moment_text(draft.turn.at)
    name, visit = draft.event.step, draft.event.visit or 1
    if name is None:
        draft.state.late = True
        emit_late(draft, None, 0, since)
    else:
        draft.state.tokens[name, visit] = draft.state.tokens[name, visit]._replace(late=True)
        emit_late(draft, draft.playbook.steps[name], visit, since)
    draft.add(ReportedLate(name, visit, _start_on_late(draft, name, visit, since)))


def _start_on_late(draft: Draft, step: str | None, visit: int, since: str) -> OnFailureStart | None:
    """What starts; None if the playbook names nothing, or the execution was started as an alarm itself."""
    declared = draft.playbook.on_late
    if declared is None or draft.state.failed_before is not None:
        return None
    given: dict[str, JSON] = {
        "execution_id": draft.turn.execution_id,
        "path": draft.playbook.path,
        "step": step,
        "since": since,
    }
    if step is not None:
        given["visit"] = visit
    return OnFailureStart(declared.path, {**render_args(draft, declared, {}), **given})


def end_late_timers(draft: Draft, before: ExecutionState) -> None:
    """Delete the timers of visits that this turn ended. What is draining has ended."""
    begun = [(timer.step, timer.visit) for timer in draft.writes.effects if type(timer) is TimerSet]
    for step, visit in dict.fromkeys((*before.tokens, *begun)):
        if draft.playbook.steps[step].late_after is None:
            continue
        token, old = draft.state.tokens.get((step, visit)), before.tokens.get((step, visit))
        was_open = old is None or not old.draining
        if was_open and (token is None or token.draining):
            draft.add(LateTimerEnded(step, visit))
