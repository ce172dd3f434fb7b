"""Waits: steps that the broker runs without a job or a worker, until a moment or a signal comes.

A wait is a row that keeps the inputs of its visit, and a timer. `timer_due` ends it. A moment that has passed ends the
visit in the turn of its beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.flow.transitions import complete_at_once, complete_with, fail_visit
from noetl_broker.broker.model.effects import TimerSet, WaitEnded, WaitOpened
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.waits.due import due_of_fork
from noetl_broker.broker.waits.signals import SIGNALS, TIMEOUT, begin_signal_wait
from noetl_broker.broker.writing.errors import describe_error, wrong_value
from noetl_broker.broker.writing.inputs import inputs_as_request, inputs_of_visit
from noetl_broker.template import TemplateError
from noetl_broker.template.durations import (
    DURATION_FORMS,
    MOMENT_FORMS,
    after,
    moment_text,
    parse_duration,
    parse_moment,
)

if TYPE_CHECKING:
    from datetime import datetime

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.event import Event
    from noetl_broker.broker.state.state import Arrival, RenderedInputs, Token
    from noetl_broker.playbook.model import Step, WaitSpec
    from noetl_broker.template.scope import Scope

WAIT = "wait"  # the purpose of a timer


def begin_wait(draft: Draft, step: Step, visit: int, _ordinal: int, given: RenderedInputs, arrival: Arrival) -> None:
    """Begin the wait of a visit, or complete it where its moment has passed. Raises TemplateError."""
    wait = step.wait
    if wait is None:
        raise TemplateError("the step waits for nothing", template="", at=step.name)
    if wait.signals is not None:
        begin_signal_wait(draft, step, visit, given, arrival)
        return
    due = due_of_fork(arrival) or _due(draft, wait, draft.templates.scope(given.values, arrival.result))
    if due <= draft.turn.at:
        token = draft.state.tokens[step.name, visit]
        complete_at_once(draft, step, token, _result_of(moment_text(due)), given, arrival.passed)
        return
    draft.add(WaitOpened(step.name, visit, "timer", inputs_as_request(given)))
    draft.add(TimerSet(step.name, visit, WAIT, due, wait.until is not None))


def _due(draft: Draft, wait: WaitSpec, scope: Scope) -> datetime:
    """The moment until which a visit waits that begins now."""
    tree = wait.duration if wait.duration is not None else wait.until
    if tree is None:
        raise TemplateError("the step waits for no moment", template="", at="")
    value = draft.templates.render(tree, scope)
    try:
        if wait.duration is not None:
            return after(draft.turn.at, parse_duration(value))
        return parse_moment(value)
    except ValueError:
        forms = DURATION_FORMS if wait.duration is not None else MOMENT_FORMS
        raise wrong_value(tree, f"`{'for' if wait.duration is not None else 'until'}` must be {forms}", value) from None


def purpose_of(event: Event) -> str | None:
    """What the timer of the event was set for; None if the event does not say it."""
    purpose = event.context.get("purpose") if isinstance(event.context, dict) else None
    return purpose if isinstance(purpose, str) else None


def is_timer_of(step: Step, event: Event) -> bool:
    """Whether an open visit of the step can have set the timer of the event."""
    purpose = purpose_of(event)
    if step.approval is not None:
        return purpose == TIMEOUT and step.approval.timeout is not None
    wait = step.wait
    if wait is None or wait.signals is None:
        return purpose == WAIT
    return purpose == SIGNALS or (purpose == TIMEOUT and wait.timeout is not None)


def complete_wait(draft: Draft, token: Token) -> None:
    """Complete a visit whose moment came."""
    step = draft.playbook.steps[token.step]
    context = draft.event.context if isinstance(draft.event.context, dict) else {}
    due = context.get("due_at")
    draft.add(WaitEnded(token.step, token.visit, "done"))
    given = inputs_of_visit(draft, step, token.visit)
    complete_with(draft, step, token, _result_of(due if isinstance(due, str) else moment_text(draft.turn.at)), given)


def fail_wait(draft: Draft, token: Token, error: JSON) -> None:
    """Fail a wait for good; `on_error` decides what follows."""
    time_out(draft, token, {"message": "no signal came in time", **error})


def time_out(draft: Draft, token: Token, error: dict[str, JSON]) -> None:
    """Fail a visit because its timeout passed."""
    step = draft.playbook.steps[token.step]
    draft.add(WaitEnded(token.step, token.visit, "timed_out"))
    fail_visit(draft, step, token, describe_error(step, error), continues=step.on_error == "continue")


def _result_of(due: str) -> dict[str, JSON]:
    return {"waited_until": due}
