"""Steps: what each kind of step does when a token enters, during a visit, and when its action ends.

A new kind of step is a row of `KINDS` and a module with its functions. It also needs a row in each table that
playbook/kinds.py names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.flow.cancel import cancel_visit
from noetl_broker.broker.flow.fail import begin_fail
from noetl_broker.broker.flow.failures import Uncaught, fail_entry, spent_joins
from noetl_broker.broker.flow.late import seconds_until_late, set_late_timer
from noetl_broker.broker.flow.transitions import fail_at_once, follow_next
from noetl_broker.broker.model.decision import StepRow
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import NO_INPUTS, Arrival, RenderedInputs, Token, TokenData, overlay_inputs
from noetl_broker.broker.state.trail import Entered
from noetl_broker.broker.waits.approval import begin_approval, decide_approval, fail_approval
from noetl_broker.broker.waits.signals import send_signal
from noetl_broker.broker.waits.wait import begin_wait, complete_wait, fail_wait
from noetl_broker.broker.work.children import (
    call_child,
    complete_child,
    max_nesting_error,
    process_failed_child,
    start_child_again,
)
from noetl_broker.broker.work.item_ends import complete_iterator, end_adopted_child, end_item
from noetl_broker.broker.work.iterators import begin_iterator, cancel_items, continue_iterator
from noetl_broker.broker.work.retries import process_failed_action
from noetl_broker.broker.work.worker_children import complete_action, complete_children
from noetl_broker.broker.writing.errors import cycle_error, template_error
from noetl_broker.broker.writing.events import emit_step_completed, emit_step_started
from noetl_broker.broker.writing.inputs import reach, render_inputs
from noetl_broker.broker.writing.queue import enqueue_job
from noetl_broker.broker.writing.workflow import track_ended, track_started
from noetl_broker.playbook.graph import NOBODY
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.playbook.kinds import StepKind
    from noetl_broker.playbook.model import Playbook, Step


Arcs = tuple[int, ...]  # that led to a visit
NEED_NOT_MET, MAX_VISITS = "need_not_met", "max_visits"  # types of errors


def _never(*_arguments: object) -> None:
    raise TypeError("no visit of this kind of step is open for this event")


class Kind(NamedTuple):
    """What the broker does with the steps of one kind. What their open visits wait for is in `playbook/kinds.py`.

    `enter(draft, step, visit, arrival, arcs)` begins a visit. That of a step with an action calls
    `begin(draft, step, visit, ordinal, given, arrival)`, which starts the action and raises TemplateError; `ordinal`
    is the position of its step_started in the turn. `complete(draft, token)` and `fail(draft, token, error)` handle the
    end of the action. `end_item(draft, token)` handles the end of an item, or of a child that a worker started.
    `gather(draft, token)` completes the step when all of them have ended. `resume(draft, token)` starts what was due
    during a pause.
    """

    enter: Callable[[Draft, Step, int, Arrival, Arcs], None]
    begin: Callable[[Draft, Step, int, int, RenderedInputs, Arrival], None] = _never
    complete: Callable[[Draft, Token], None] = _never
    fail: Callable[[Draft, Token, JSON], None] = _never
    end_item: Callable[[Draft, Token], None] = _never
    gather: Callable[[Draft, Token], None] = _never
    resume: Callable[[Draft, Token], None] = _never


def enter_step(
    draft: Draft,
    step: Step,
    arrival: Arrival,
    repeat_visit: int | None = None,
    gathered: tuple[Arrival, ...] = (),
) -> None:
    """Begin a visit of the step for the token of `arrival`, which a join merged from those that it `gathered`.

    A fork repeats the visit `repeat_visit`.
    """
    visit = repeat_visit or draft.state.visits(step) + 1
    if draft.traced:
        draft.trail.append(Entered(step.name, visit, arrival, gathered))
    over = _over_limit(draft, step)
    if over is not None:
        fail_entry(draft, step, visit, over, NOBODY)  # spent tokens count for the limit too
        return
    deep = _nesting_error(draft, step)
    if deep is None or step.catch or spent_joins(draft, step, arrival.spent):
        draft.state.count_visit(step, visit)
    if deep is not None:
        fail_at_once(draft, step, visit, deep, arrival)
        return
    arcs = tuple(one.arc for one in gathered) if step.need > 1 else ()  # an `all` join names the last one
    KINDS[step.kind].enter(draft, step, visit, arrival, arcs or (arrival.arc,))


def fail_short_join(draft: Draft, step: Step, arrival: Arrival, gathered: tuple[Arrival, ...]) -> None:
    """Fail a step whose join got fewer arrivals than it needs, and gets no more; `arrival` merges them."""
    visit = draft.state.visits(step) + 1
    draft.trail.append(Entered(step.name, visit, arrival, gathered))
    over = _over_limit(draft, step)
    if over is not None:
        fail_entry(draft, step, visit, over, NOBODY)
        return
    draft.state.count_visit(step, visit)
    message = f"join {step.name} needs {step.need} arrivals; {len(gathered)} came, and no other token can reach it"
    error: dict[str, JSON] = {"step": step.name, "message": message, "type": NEED_NOT_MET}
    continues = step.on_error == "continue" and step.type != "iterator"  # of an iterator it is that of its items
    if step.name in arrival.passed:
        fail_entry(draft, step, visit, cycle_error(draft, step), arrival.spent)
    else:
        fail_at_once(draft, step, visit, error, arrival, continues=continues)


def _enter_action(draft: Draft, step: Step, visit: int, arrival: Arrival, arcs: Arcs) -> None:
    draft.state.tokens[step.name, visit] = Token(step.name, visit, spent=arrival.spent)
    ordinal = emit_step_started(draft, step, visit, arcs)
    track_started(draft, step, ordinal)
    if arrival.spent and are_all_ways_spent(draft.playbook, step.name, arrival.spent):
        cancel_visit(draft, (step.name, visit), spent_joins(draft, step, arrival.spent))
        return
    given = None
    try:
        given = visit_inputs(draft, step, arrival)
        late_after = None if step.late_after is None else seconds_until_late(draft, step, given, arrival)
        KINDS[step.kind].begin(draft, step, visit, ordinal, given, arrival)
        if late_after is not None:
            set_late_timer(draft, step, visit, late_after)
    except Uncaught as failed:
        token = draft.state.tokens.pop((step.name, visit))
        fail_entry(draft, step, visit, failed.error, token.spent, failed.catch, failed.data)
    except TemplateError as fault:
        token = draft.state.tokens.pop((step.name, visit))
        if (
            draft.writes.jobs
            and draft.writes.jobs[-1][:2] == (step.name, visit)
            and (step.catch or spent_joins(draft, step, token.spent))
        ):
            cancel_items(draft, step, token)  # an iterator had begun
        fail_at_once(draft, step, visit, template_error(step, fault), arrival, given)


def _pass_router(draft: Draft, step: Step, visit: int, arrival: Arrival, arcs: Arcs) -> None:
    ordinal = emit_step_started(draft, step, visit, arcs)
    track_started(draft, step, ordinal)
    if step.name in arrival.passed:
        fail_entry(draft, step, visit, cycle_error(draft, step), arrival.spent)
        return
    passed, given = arrival.passed | {step.name}, None
    try:
        given = visit_inputs(draft, step, arrival)
        scope = draft.templates.scope(given.values, arrival.result)
        leaving = TokenData(arrival.result, arrival.sources, arrival.spent, passed)
        arrivals, conditions = follow_next(draft, step, visit, scope, given, leaving)
    except TemplateError as fault:
        fail_at_once(draft, step, visit, template_error(step, fault), arrival, given)
        return
    ordinal = emit_step_completed(draft, step, visit, conditions)
    track_ended(draft, step, "COMPLETED", ordinal)
    if not arrivals:
        draft.state.ends.update(dict.fromkeys(arrival.sources))
    draft.arrivals.extend(arrivals)


def _leave_start(draft: Draft, step: Step, visit: int, arrival: Arrival, _arcs: Arcs) -> None:
    given = None
    try:
        given = visit_inputs(draft, step, arrival)
        arrivals, _ = follow_next(draft, step, visit, draft.templates.scope(given.values, None), given, TokenData())
    except TemplateError as fault:
        fail_at_once(draft, step, visit, template_error(step, fault), arrival, given)
        return
    draft.writes.rows[step.name] = StepRow(step.name, "COMPLETED", 1, 0, 0)
    draft.arrivals.extend(arrivals)


def _reach_end(draft: Draft, step: Step, visit: int, arrival: Arrival, _arcs: Arcs) -> None:
    try:
        draft.state.end = reach(step, arrival.result, visit_inputs(draft, step, arrival))
    except TemplateError as fault:
        fail_entry(draft, step, visit, template_error(step, fault), arrival.spent)
        return
    draft.state.ends.update(dict.fromkeys(arrival.sources))
    ordinal = max(len(draft.writes.events) - 1, 0)
    draft.writes.rows[step.name] = StepRow(step.name, "COMPLETED", visit, ordinal, ordinal)


def are_all_ways_spent(playbook: Playbook, step: str, spent: frozenset[str]) -> bool:
    """Whether a visit that waits for something outside can have no effect: all its ways end at joins in `spent`.

    A way does not end there if it leads through a join that merges it with other tokens.
    """
    if playbook.steps[step].waits_for != "event":
        return False
    ahead, seen = [step], {step}
    while ahead:
        targets = playbook.graph.successors(ahead.pop())
        if not targets:
            return False
        for name in targets:
            target = playbook.steps[name]
            if name in spent or name in seen:
                continue
            if target.join == "all" or target.need > 1:
                return False
            seen.add(name)
            ahead.append(name)
    return True


def visit_inputs(draft: Draft, step: Step, arrival: Arrival) -> RenderedInputs:
    """The visit's inputs: the step's own, and over them its transitions' inputs, which the step's own may read."""
    given = RenderedInputs(arrival.inputs) if arrival.inputs else NO_INPUTS
    if step.inputs.empty:
        return given
    scope = draft.templates.scope(given.values, arrival.result)
    return overlay_inputs(render_inputs(draft, step.inputs, scope, given), given)


def _over_limit(draft: Draft, step: Step) -> dict[str, JSON] | None:
    """The error if the execution exceeds a limit by entering this step."""
    limit = draft.playbook.max_visits or draft.known.rules.max_visits
    if draft.state.total >= limit:
        loop = draft.playbook.graph.cycle(step.name)
        where = f" in the loop {' → '.join(loop)}" if loop else ""
        message = f"step {step.name}{where} would be visit {draft.state.total + 1}; the limit max_visits is {limit}"
        return {"step": step.name, "message": message, "type": MAX_VISITS, "loop": list(loop)}
    if len(draft.state.tokens) >= draft.known.rules.max_open_jobs and step.has_action:
        limit = draft.known.rules.max_open_jobs
        message = f"step {step.name} would be open job {limit + 1}; the limit max_open_jobs is {limit}"
        return {"step": step.name, "message": message, "type": "max_open_jobs"}
    return None


def _nesting_error(draft: Draft, step: Step) -> dict[str, JSON] | None:
    task = step if step.iteration is None else step.iteration.task
    return max_nesting_error(draft, step) if task.call is not None else None


def _begin_job(draft: Draft, step: Step, visit: int, ordinal: int, given: RenderedInputs, arrival: Arrival) -> None:
    enqueue_job(draft, step, visit, ordinal, given, arrival.result)


KINDS: dict[StepKind, Kind] = {
    "start": Kind(_leave_start),
    "end": Kind(_reach_end),
    "router": Kind(_pass_router),
    "action": Kind(
        _enter_action,
        begin=_begin_job,
        complete=complete_action,
        fail=process_failed_action,
        end_item=end_adopted_child,
        gather=complete_children,
    ),
    "playbook": Kind(
        _enter_action,
        begin=call_child,
        complete=complete_child,
        fail=process_failed_child,
        resume=start_child_again,
    ),
    "iterator": Kind(
        _enter_action,
        begin=begin_iterator,
        fail=process_failed_action,
        end_item=end_item,
        gather=complete_iterator,
        resume=continue_iterator,
    ),
    "wait": Kind(_enter_action, begin=begin_wait, complete=complete_wait, fail=fail_wait),
    "approval": Kind(_enter_action, begin=begin_approval, complete=decide_approval, fail=fail_approval),
    "signal": Kind(_enter_action, begin=send_signal),
    "fail": Kind(_enter_action, begin=begin_fail),
}
