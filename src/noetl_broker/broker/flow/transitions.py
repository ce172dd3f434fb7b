"""Transitions: which entries of a step's `next` or `catch` fire when it ends, and the arrivals that they give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from noetl_broker.broker.flow.failures import Uncaught, fail_entry, fail_step, keeps_item, spent_joins, track_failed
from noetl_broker.broker.model.values import JSON, as_stored
from noetl_broker.broker.state.state import Arrival, InlineResult, RenderedInputs, Token, TokenData
from noetl_broker.broker.state.trail import CatchEvaluated, NextEvaluated
from noetl_broker.broker.writing.errors import complete_error, cycle_error, template_error
from noetl_broker.broker.writing.events import CatchRead, emit_step_completed, emit_step_failed
from noetl_broker.broker.writing.inputs import condition_scope, inputs_of_visit, reach, render_inputs
from noetl_broker.broker.writing.queue import end_job
from noetl_broker.broker.writing.workflow import track_ended
from noetl_broker.playbook.graph import NOBODY
from noetl_broker.playbook.keywords import ERROR
from noetl_broker.template import StepResult, TemplateError, wrap

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.state.state import ResultRef
    from noetl_broker.playbook.model import Step, Target
    from noetl_broker.template import Template
    from noetl_broker.template.scope import Scope

Conditions = list[dict[str, JSON]]
# Where the result of a visit is: in the event, or in the step_completed (made by the broker, or by `output`).
Origin = Literal["event", "made", "output"]


def process_completed_steps(draft: Draft, token: Token) -> None:
    """Complete the step of a visit whose action completed; its `next` decides where the token goes."""
    step = draft.playbook.steps[token.step]
    if not draft.event.settled:
        end_job(draft, step, token.visit, "done")
    pass_on(draft, step, token)


def pass_on(
    draft: Draft,
    step: Step,
    token: Token,
    error: dict[str, JSON] | None = None,
    catch: CatchRead | None = None,
) -> None:
    """Let the token leave its visit with the event's result, or with `error` if `on_error` is `continue`.

    `catch` was read before and did not handle the error.
    """
    del draft.state.tokens[token.step, token.visit]
    result = None
    if error is not None:
        error = as_stored(error)  # as later turns read it from the step_failed
        result = StepResult(None, "FAILED", error)
    draft.templates.end_visit((token.step, token.visit), result)
    given = inputs_of_visit(draft, step, token.visit)
    _leave_visit(draft, step, token, given, error, catch)


def complete_with(draft: Draft, step: Step, token: Token, data: JSON, given: RenderedInputs) -> None:
    """Complete a visit with a result that the broker made from the event; its step_completed carries the result."""
    del draft.state.tokens[token.step, token.visit]
    draft.templates.end_visit((token.step, token.visit), StepResult(as_stored(data)))
    _leave_visit(draft, step, token, given, made=(data,))


def _leave_visit(
    draft: Draft,
    step: Step,
    token: Token,
    given: RenderedInputs,
    error: dict[str, JSON] | None = None,
    catch: CatchRead | None = None,
    *,
    made: tuple[JSON] | None = None,
) -> None:
    """Let the token leave the visit that the event ended. `made` has the result if the event does not."""
    number = _result_of_turn(draft, step, error)
    leaving = TokenData(number, () if _is_spent(draft, token) else (step.name,), token.spent)
    origin: Origin | None = None if error is not None else "made" if made else "event"
    data = made[0] if made else None
    try:
        if error is None and step.output is not None:
            scope = draft.templates.scope(given.values, number, own=step.name)
            data = draft.templates.render(step.output, scope)
            draft.templates.end_visit((step.name, token.visit), StepResult(as_stored(data)))
            origin = "output"
        scope = draft.templates.scope(given.values, number, own=step.name)
        arrivals, conditions = follow_next(draft, step, token.visit, scope, given, leaving)
    except TemplateError as fault:
        _fail_leaving(draft, step, token, given, fault, "made" if made else origin)
        return
    if error is not None:
        ordinal = emit_step_failed(draft, step, token.visit, error, conditions, catch=catch)
        track_failed(draft, step, token.visit, ordinal)
    elif origin == "event":
        ordinal = emit_step_completed(draft, step, token.visit, conditions)
        track_ended(draft, step, "COMPLETED", ordinal, token.visit)
    else:
        draft.writes.carrier = _complete(draft, step, token, data, conditions)
    _leave(draft, step, arrivals, leaving, given)


def _fail_leaving(
    draft: Draft, step: Step, token: Token, given: RenderedInputs, fault: TemplateError, origin: Origin | None
) -> None:
    """Fail a visit whose action has ended, because a template of its `output` or its `next` failed.

    `origin` says where the result of the action is; None: the action failed too.
    """
    error, catch = template_error(step, fault), None
    if step.catch:
        data = None if origin is None else draft.templates.ended_result().data
        attempt = max(token.failures, 1) if origin is None else token.failures + 1
        error = as_stored(complete_error(error, attempt))
        try:
            catch = _take_catch(draft, step, token, given, error, data)
        except TemplateError as another:
            error = {**template_error(step, another), "caused_by": error}
        else:
            if catch.entry is not None:
                return
    lost = spent_joins(draft, step, token.spent)
    if origin is None or (origin != "output" and not lost):
        fail_step(draft, step, token, error, catch)
    else:
        kept = draft.templates.ended_result().data
        fail_step(draft, step, token, error, (catch or CatchRead([]))._replace(result=wrap(kept)), kept)
    if origin == "event" and not lost:  # its action has a result, which a fork takes over
        draft.writes.carrier = None
        draft.templates.end_visit((step.name, token.visit), None)


def _result_of_turn(draft: Draft, step: Step, error: dict[str, JSON] | None, data: JSON = None) -> ResultRef:
    """The result that a token takes along from the visit which the event ended."""
    return InlineResult(data, as_stored(error)) if keeps_item(draft, step) else draft.turn.number


def fail_visit(draft: Draft, step: Step, token: Token, error: dict[str, JSON], *, continues: bool) -> None:
    """End a visit that failed for good: its `catch` decides; if that has no true entry, `on_error` (`continues`)."""
    draft.state.tokens.pop((step.name, token.visit), None)
    catch = None
    if step.catch:
        error = as_stored(complete_error(error, max(token.failures, 1)))
        try:
            catch = _take_catch(draft, step, token, inputs_of_visit(draft, step, token.visit), error)
        except TemplateError as fault:
            fail_step(draft, step, token, {**template_error(step, fault), "caused_by": error})
            return
        if catch.entry is not None:
            return
    if continues:
        draft.state.tokens[step.name, token.visit] = token
        pass_on(draft, step, token, error, catch)
    else:
        fail_step(draft, step, token, error, catch)


def _take_catch(
    draft: Draft, step: Step, token: Token, given: RenderedInputs, error: dict[str, JSON], data: JSON = None
) -> CatchRead:
    """Read the `catch` of a visit that the event ended; if an entry is true, the token goes on.

    Raises TemplateError if one of its own templates fails.
    """
    visit, number = (step.name, token.visit), _result_of_turn(draft, step, error, data)
    before = draft.templates.end_visit(visit, StepResult(data, "FAILED", error))
    leaving = TokenData(number, () if _is_spent(draft, token) else (step.name,), token.spent)
    try:
        catch, arrivals = _read_catch(draft, step, token.visit, given, error, leaving)
    except TemplateError:
        draft.templates.end_visit(*before)
        raise
    if catch.entry is None:
        draft.templates.end_visit(*before)
        return catch
    ordinal = emit_step_failed(draft, step, token.visit, error, catch=catch._replace(result=wrap(data)))
    track_failed(draft, step, token.visit, ordinal)
    _leave(draft, step, arrivals, leaving, given)
    return catch


def _read_catch(
    draft: Draft, step: Step, visit: int, given: RenderedInputs, error: dict[str, JSON], leaving: TokenData
) -> tuple[CatchRead, list[Arrival]]:
    """The first entry of the step's `catch` that is true, and the arrivals that it gives. Raises TemplateError."""
    conditions: Conditions = []
    # the event ends no visit of a router, nor of a step whose result is not the event's
    own = "" if step.kind == "router" or isinstance(leaving.result, InlineResult) else step.name
    scope = condition_scope(draft, given, leaving.result, {ERROR: error}, own=own)
    arrivals: list[Arrival] = []
    number, fault = None, None
    try:
        for index, entry in enumerate(step.catch):
            to = [target.step for target in entry.then]
            if entry.condition is not None:
                true = _holds(draft, entry.condition, scope)
                conditions.append({"when": entry.condition.source, "outcome": true, "to": to if true else []})
                if not true:
                    continue
            arrivals = [_arrival(draft, target, scope, leaving) for target in entry.then]
            number = index
            return CatchRead(conditions, index, to), arrivals
        return CatchRead(conditions), []
    except TemplateError as failed:
        fault = str(failed)
        raise
    finally:
        if draft.traced:
            trace = CatchEvaluated(step.name, visit, scope, given, conditions, arrivals, number, fault)
            draft.trail.append(trace)


def complete_at_once(
    draft: Draft,
    step: Step,
    token: Token,
    data: JSON,
    given: RenderedInputs,
    passed: frozenset[str] = NOBODY,
) -> None:
    """Complete a visit in the turn of its beginning; the token has `passed` these steps in it.

    Raises Uncaught if its `output` or `next` fails.
    """
    visit, result = (token.step, token.visit), InlineResult(as_stored(data))
    before = draft.templates.make_result(visit, result)
    sources = () if _is_spent(draft, token) else (step.name,)
    try:
        if step.output is not None:
            data = draft.templates.render(step.output, draft.templates.scope(given.values, result))
            result = InlineResult(as_stored(data))
            draft.templates.make_result(visit, result)
        leaving = TokenData(result, sources, token.spent)
        arrivals, conditions = follow_next(
            draft, step, token.visit, draft.templates.scope(given.values, result), given, leaving
        )
    except TemplateError as fault:
        draft.templates.drop_result(step.name, before)
        error, catch = template_error(step, fault), None
        if step.catch:
            arrival = Arrival(0, step.name, {}, spent=token.spent, passed=passed)
            error, catch = catch_at_once(draft, step, token.visit, error, arrival, given, result.value)
        if catch is None or catch.entry is None:
            raise Uncaught(error, catch, result.value) from fault
        return
    del draft.state.tokens[visit]
    _complete(draft, step, token, data, conditions)
    _leave(draft, step, arrivals, leaving, given)


def fail_at_once(
    draft: Draft,
    step: Step,
    visit: int,
    error: dict[str, JSON],
    arrival: Arrival,
    given: RenderedInputs | None = None,
    *,
    continues: bool = False,
) -> None:
    """End a visit that failed in the turn of its beginning: its `catch` decides, then `on_error` (`continues`).

    `given` are its inputs, if they could be rendered.
    """
    given = RenderedInputs(arrival.inputs) if given is None else given
    if (continues or step.catch) and step.name in arrival.passed:
        fail_entry(draft, step, visit, cycle_error(draft, step), arrival.spent)
        return
    catch: CatchRead | None = None
    if step.catch:
        error, catch = catch_at_once(draft, step, visit, error, arrival, given)
        continues = continues and catch is not None and catch.entry is None
    if continues:
        try:
            _go_on_failed(draft, step, visit, error, arrival, given, catch)
        except TemplateError as fault:
            error = template_error(step, fault)
            if step.catch:
                error, catch = catch_at_once(draft, step, visit, error, arrival, given)
        else:
            return
    if catch is None or catch.entry is None:
        fail_entry(draft, step, visit, error, arrival.spent, catch)


def catch_at_once(
    draft: Draft,
    step: Step,
    visit: int,
    error: dict[str, JSON],
    arrival: Arrival,
    given: RenderedInputs,
    data: JSON = None,
) -> tuple[dict[str, JSON], CatchRead | None]:
    """Read the `catch` of a visit that failed in the turn of its beginning; if an entry is true, the token goes on.

    Returns the error with which the visit fails, and what the `catch` came to; None: one of its own templates failed.
    """
    if step.name in arrival.passed:
        return cycle_error(draft, step), None
    error = as_stored(complete_error(error, 1))
    result = InlineResult(data, error)
    leaving = _failed_token(draft, step, visit, arrival, result)
    before = draft.templates.make_result((step.name, visit), result)
    try:
        catch, arrivals = _read_catch(draft, step, visit, given, error, leaving)
    except TemplateError as fault:
        draft.templates.drop_result(step.name, before)
        return {**template_error(step, fault), "caused_by": error}, None
    if catch.entry is None:
        draft.templates.drop_result(step.name, before)
        return error, catch
    draft.state.tokens.pop((step.name, visit), None)
    ordinal = emit_step_failed(draft, step, visit, error, catch=catch._replace(result=wrap(data)))
    track_ended(draft, step, "FAILED", ordinal, visit, ordinal)
    _leave(draft, step, arrivals, leaving, given)
    return error, catch


def _go_on_failed(
    draft: Draft,
    step: Step,
    visit: int,
    error: dict[str, JSON],
    arrival: Arrival,
    given: RenderedInputs,
    catch: CatchRead | None,
) -> None:
    """Let a token go on that failed in the turn in which its visit began. Raises TemplateError if its `next` fails."""
    result = InlineResult(None, as_stored(error))
    before = draft.templates.make_result((step.name, visit), result)
    try:
        leaving = _failed_token(draft, step, visit, arrival, result)
        arrivals, conditions = follow_next(
            draft, step, visit, draft.templates.scope(given.values, result), given, leaving
        )
    except TemplateError:
        draft.templates.drop_result(step.name, before)
        raise
    draft.state.tokens.pop((step.name, visit), None)
    ordinal = emit_step_failed(draft, step, visit, result.error, conditions, catch=catch)
    track_ended(draft, step, "FAILED", ordinal, visit, ordinal)
    _leave(draft, step, arrivals, leaving, given)


def _failed_token(draft: Draft, step: Step, visit: int, arrival: Arrival, result: InlineResult) -> TokenData:
    """What a token takes along that goes on from a failed visit: its result; of a router what it arrived with."""
    passed = arrival.passed | {step.name}
    if step.kind == "router":
        return TokenData(arrival.result, arrival.sources, arrival.spent, passed)
    is_spent = _is_spent(draft, Token(step.name, visit, spent=arrival.spent))
    return TokenData(result, () if is_spent else (step.name,), arrival.spent, passed)


def _complete(draft: Draft, step: Step, token: Token, data: JSON, conditions: Conditions) -> int:
    ordinal = emit_step_completed(draft, step, token.visit, conditions, wrap(data))
    track_ended(draft, step, "COMPLETED", ordinal, token.visit, ordinal)
    return ordinal


def _leave(draft: Draft, step: Step, arrivals: list[Arrival], leaving: TokenData, given: RenderedInputs) -> None:
    """Let the token of a completed visit go on, or end its branch."""
    if step is draft.playbook.end:
        draft.state.end = reach(step, leaving.result, given)
    elif not arrivals:
        draft.state.ends.update(dict.fromkeys(leaving.sources))
    draft.arrivals.extend(arrivals)


def _is_spent(draft: Draft, token: Token) -> bool:
    """Whether a join that its step can reach no longer waits for the token. Then its data is not in the result."""
    return bool(token.spent) and any(draft.playbook.graph.can_reach(token.step, join) for join in token.spent)


def follow_next(
    draft: Draft, step: Step, visit: int, scope: Scope, given: RenderedInputs, leaving: TokenData
) -> tuple[list[Arrival], Conditions]:
    """The arrivals of the step's `next`, in document order, and its conditions with their outcomes.

    Raises TemplateError if a condition or an input of a transition fails.
    """
    conditions: Conditions = []
    arrivals: list[Arrival] = []
    if draft.traced:
        draft.trail.append(NextEvaluated(step.name, visit, scope, given, conditions, arrivals))
    for target in _choose(draft, step, scope, conditions):
        arrivals.append(_arrival(draft, target, scope, leaving))  # noqa: PERF401 - the trail has those before a fault
    return arrivals, conditions


def _arrival(draft: Draft, target: Target, scope: Scope, leaving: TokenData) -> Arrival:
    """The token on the arc to this target, with its rendered inputs. Raises TemplateError."""
    if target.inputs.empty:
        return Arrival(target.arc, target.step, {}, *leaving)
    return Arrival(target.arc, target.step, render_inputs(draft, target.inputs, scope).values, *leaving)


def _choose(draft: Draft, step: Step, scope: Scope, conditions: Conditions) -> list[Target]:
    taken: list[Target] = []
    matched = seen_condition = False
    otherwise: list[Target] = []  # fires if no condition is true
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
    """Whether the condition is true; with `undefined_when: false` an undefined name makes it false, with a note."""
    try:
        return draft.templates.holds(condition, scope)
    except TemplateError as fault:
        if not fault.undefined or draft.known.rules.undefined_when != "false":
            raise
        draft.writes.note = f"undefined in a when, taken as false: {fault}"
        return False
