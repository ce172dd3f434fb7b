"""Step completion: which entries of `next` fire, and the arrivals that come of it (spec section 2, rules 1 to 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.closing import render_handed
from noetl_broker.broker.events import emit_step_completed, emit_step_failed
from noetl_broker.broker.failure import fail_step, template_error
from noetl_broker.broker.given import Given
from noetl_broker.broker.inputs import given_to, reach
from noetl_broker.broker.model import JSON, as_stored
from noetl_broker.broker.queue import change_job
from noetl_broker.broker.state import Arrival, Leaving, Token
from noetl_broker.broker.trail import Left
from noetl_broker.broker.unfinished import insist_on_values, unfinished_of
from noetl_broker.broker.workflow import track_ended
from noetl_broker.template import StepResult, TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.playbook.model import Step, Target
    from noetl_broker.template import Template
    from noetl_broker.template.scope import Scope

Conditions = list[dict[str, JSON]]


def process_completed_steps(draft: Draft, token: Token) -> None:
    """The action of a visit ended: its step completes, and its `next` decides where its token goes."""
    step = draft.playbook.steps[token.step]
    if not draft.event.settled:
        change_job(draft, step, token.visit, "done")
    pass_on(draft, step, token)


def pass_on(draft: Draft, step: Step, token: Token, error: dict[str, JSON] | None = None) -> None:
    """The token leaves its visit with the event's result; `error` where its step failed and `on_error` lets it go."""
    del draft.tokens[token.step, token.visit]
    result = None
    if error is not None:
        error = as_stored(error)  # later turns read it in the step_failed
        result = StepResult(None, "FAILED", error)
    draft.leave((token.step, token.visit), result)
    number = draft.turn.number
    given = given_to(draft, step, token.visit)
    scope = draft.scope(given.values, number, own=step.name)
    try:
        leaving = Leaving(number, () if _is_spent(draft, token) else (step.name,), token.spent)
        arrivals, conditions = follow_next(draft, step, token.visit, scope, given, leaving)
    except TemplateError as fault:
        fail_step(draft, step, token, template_error(step, fault))
        if error is None:  # its action has a result all the same, which a fork takes over
            draft.failed = None
            draft.leave((token.step, token.visit), None)
        return
    if error is None:
        ordinal = emit_step_completed(draft, step, token.visit, conditions)
    else:
        ordinal = draft.failed = emit_step_failed(draft, step, token.visit, error, conditions)
    track_ended(draft, step, "FAILED" if error else "COMPLETED", ordinal, token.visit)
    if step is draft.playbook.end:
        draft.end = reach(step, number, given)
    elif not arrivals:
        draft.ends.update(dict.fromkeys(leaving.sources))
    draft.arrivals.extend(arrivals)


def _is_spent(draft: Draft, token: Token) -> bool:
    """Whether the token was spent for a join to which its step may lead: what it gives is no part of the result."""
    return any(draft.playbook.graph.can_reach(token.step, join) for join in token.spent)


def follow_next(
    draft: Draft, step: Step, visit: int, scope: Scope, given: Given, leaving: Leaving
) -> tuple[list[Arrival], Conditions]:
    """The arrivals that the step's `next` gives, in document order, and the conditions with their outcomes.

    Raises TemplateError where a condition or an input of a transition fails.
    """
    conditions: Conditions = []
    arrivals: list[Arrival] = []
    draft.trail.append(Left(step.name, visit, scope, given, conditions, arrivals))
    unfinished = unfinished_of(draft, given, leaving=True)
    insist_on_values(unfinished, *(entry.condition for entry in step.next))
    for target in _choose(draft, step, scope, conditions):
        handed = render_handed(draft, target, scope, given, unfinished)
        arrivals.append(Arrival(target.arc, target.step, handed.values, *leaving, handed.left))
    return arrivals, conditions


def _choose(draft: Draft, step: Step, scope: Scope, conditions: Conditions) -> list[Target]:
    taken: list[Target] = []
    matched = seen_condition = False
    otherwise: list[Target] = []  # what fires if no condition of the list is true
    for entry in step.next:
        if entry.condition is not None:
            seen_condition = True
            if step.exclusive and matched:
                continue
            true = _holds(draft, entry.condition, scope)
            fired = entry.then if true else entry.otherwise
            matched = matched or true
            taken.extend(fired)
            conditions.append(
                {"when": entry.condition.source, "outcome": true, "to": [target.step for target in fired]}
            )
        elif entry.kind == "else":
            otherwise.extend(entry.otherwise)
        elif seen_condition:
            otherwise.extend(entry.then)
        else:
            taken.extend(entry.then)
    if seen_condition and not matched:
        taken.extend(otherwise)
    if len(taken) > 1:
        taken.sort(key=lambda target: target.arc)
    return taken


def _holds(draft: Draft, condition: Template, scope: Scope) -> bool:
    """Whether the condition is true; with `undefined_when: false` an undefined name makes it false, and is noted."""
    try:
        return draft.holds(condition, scope)
    except TemplateError as fault:
        if not fault.undefined or draft.known.rules.undefined_when != "false":
            raise
        draft.note = f"undefined in a when, taken as false: {fault}"
        return False
