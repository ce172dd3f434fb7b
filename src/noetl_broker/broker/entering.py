"""Entering a step: a visit begins, and what the step's kind makes of it.

An action becomes a job; a router is passed in the same turn; `start` and `end` without an action leave no event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.children import call_child, too_deep
from noetl_broker.broker.events import emit_step_completed, emit_step_started
from noetl_broker.broker.failure import fail_entry, lost_races, template_error
from noetl_broker.broker.given import Given, lay_own
from noetl_broker.broker.inputs import reach, render_inputs
from noetl_broker.broker.iterators import begin_iterator, give_up
from noetl_broker.broker.model import JSON, Row
from noetl_broker.broker.queue import enqueue_job
from noetl_broker.broker.state import Arrival, Leaving, Token
from noetl_broker.broker.trail import Entered
from noetl_broker.broker.transitions import follow_next
from noetl_broker.broker.unfinished import unfinished_of
from noetl_broker.broker.workflow import track_ended, track_started
from noetl_broker.playbook.graph import NOBODY
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.playbook.model import Step


def enter_step(draft: Draft, step: Step, arrival: Arrival, again: int | None = None) -> None:
    """The token of `arrival` makes a new visit of the step; or the visit `again` is made once more, by a fork."""
    visit = again or draft.visits(step) + 1
    draft.trail.append(Entered(step.name, visit, arrival))
    over = _over_limit(draft, step)
    if over is not None:
        fail_entry(draft, step, visit, over, NOBODY)  # it is the limit of all tokens together
        return
    deep = _too_deep(draft, step)
    if deep is None or lost_races(draft, step, arrival.spent):
        draft.count_visit(step, visit)
    if deep is not None:
        fail_entry(draft, step, visit, deep, arrival.spent)
        return
    if step.kind != "control":
        _enter_task(draft, step, visit, arrival)
    elif step is draft.playbook.start:
        _leave_start(draft, step, visit, arrival)
    elif step is draft.playbook.end:
        _reach_end(draft, step, visit, arrival)
    else:
        _pass_router(draft, step, visit, arrival)


def _enter_task(draft: Draft, step: Step, visit: int, arrival: Arrival) -> None:
    draft.tokens[step.name, visit] = Token(step.name, visit, spent=arrival.spent)
    ordinal = emit_step_started(draft, step, visit, (arrival.arc,))
    track_started(draft, step, ordinal)
    try:
        given = visit_inputs(draft, step, arrival)
        if step.iteration is not None and step.iteration.expanded:
            begin_iterator(draft, step, visit, ordinal, given, arrival)
            return
        begin = call_child if step.kind == "playbook" else enqueue_job
        begin(draft, step, visit, ordinal, given, arrival.result)
    except TemplateError as fault:
        token = draft.tokens.pop((step.name, visit))
        if draft.jobs and draft.jobs[-1][:2] == (step.name, visit) and lost_races(draft, step, token.spent):
            give_up(draft, step, token)  # of an iterator that had begun
        fail_entry(draft, step, visit, template_error(step, fault), token.spent)


def _pass_router(draft: Draft, step: Step, visit: int, arrival: Arrival) -> None:
    ordinal = emit_step_started(draft, step, visit, (arrival.arc,))
    track_started(draft, step, ordinal)
    if step.name in arrival.passed:
        ring = " → ".join(draft.playbook.graph.cycle(step.name))
        error = {"step": step.name, "message": f"a ring of routers that no step leaves: {ring}", "type": "router_ring"}
        fail_entry(draft, step, visit, error, arrival.spent)
        return
    passed = arrival.passed | {step.name}
    try:
        given = visit_inputs(draft, step, arrival)
        scope = draft.scope(given.values, arrival.result)
        leaving = Leaving(arrival.result, arrival.sources, arrival.spent, passed)
        arrivals, conditions = follow_next(draft, step, visit, scope, given, leaving)
    except TemplateError as fault:
        fail_entry(draft, step, visit, template_error(step, fault), arrival.spent)
        return
    ordinal = emit_step_completed(draft, step, visit, conditions)
    track_ended(draft, step, "COMPLETED", ordinal)
    if not arrivals:
        draft.ends.update(dict.fromkeys(arrival.sources))
    draft.arrivals.extend(arrivals)


def _leave_start(draft: Draft, step: Step, visit: int, arrival: Arrival) -> None:
    try:
        given = visit_inputs(draft, step, arrival)
        arrivals, _ = follow_next(draft, step, visit, draft.scope(given.values, None), given, Leaving())
    except TemplateError as fault:
        fail_entry(draft, step, visit, template_error(step, fault), arrival.spent)
        return
    draft.rows[step.name] = Row(step.name, "COMPLETED", 1, 0, 0)
    draft.arrivals.extend(arrivals)


def _reach_end(draft: Draft, step: Step, visit: int, arrival: Arrival) -> None:
    try:
        draft.end = reach(step, arrival.result, visit_inputs(draft, step, arrival))
    except TemplateError as fault:
        fail_entry(draft, step, visit, template_error(step, fault), arrival.spent)
        return
    draft.ends.update(dict.fromkeys(arrival.sources))
    ordinal = max(len(draft.events) - 1, 0)
    draft.rows[step.name] = Row(step.name, "COMPLETED", visit, ordinal, ordinal)


def visit_inputs(draft: Draft, step: Step, arrival: Arrival) -> Given:
    """The visit's inputs: the step's own, and over them what its transitions gave (own ones see the others' names)."""
    given = Given(arrival.inputs, arrival.left)
    if step.inputs.empty:
        return given
    scope = draft.scope(given.values, arrival.result)
    own = render_inputs(draft, step.inputs, scope, given, unfinished_of(draft, given))
    return lay_own(own, given)


def _over_limit(draft: Draft, step: Step) -> dict[str, JSON] | None:
    """The error of an execution that would go past a limit by entering this step."""
    limit = draft.playbook.max_visits or draft.known.rules.max_visits
    if draft.total >= limit:
        loop = draft.playbook.graph.cycle(step.name)
        where = f" in the loop {' → '.join(loop)}" if loop else ""
        message = f"step {step.name}{where} would be visit {draft.total + 1}; the limit max_visits is {limit}"
        return {"step": step.name, "message": message, "type": "max_visits", "loop": list(loop)}
    if step.kind != "control" and len(draft.tokens) >= draft.known.rules.max_open_jobs:
        limit = draft.known.rules.max_open_jobs
        message = f"step {step.name} would be open job {limit + 1}; the limit max_open_jobs is {limit}"
        return {"step": step.name, "message": message, "type": "max_open_jobs"}
    return None


def _too_deep(draft: Draft, step: Step) -> dict[str, JSON] | None:
    starts = step.kind == "playbook" or (step.iteration is not None and step.iteration.task.kind == "playbook")
    return too_deep(draft, step) if starts else None
