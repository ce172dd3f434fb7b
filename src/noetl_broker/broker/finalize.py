"""The end of an execution: when nothing lives any more, and what its result is (spec section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.events import emit_execution_end, emit_step_failed
from noetl_broker.broker.failure import fail_execution, template_error
from noetl_broker.broker.given import Given
from noetl_broker.broker.inputs import result_of_end
from noetl_broker.broker.model import JSON, Ended
from noetl_broker.broker.state import COMPLETED, RUNNING
from noetl_broker.broker.unfinished import insist_on_values, unfinished_of
from noetl_broker.broker.workflow import track_ended
from noetl_broker.template import TemplateError, wrap

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.broker.state import Reached
    from noetl_broker.template import Tree


VISIT_ENDS = frozenset({"step_completed", "step_failed"})


def finalize_execution(draft: Draft) -> None:
    """Ends the execution if no token lives: `execution_complete` with its result."""
    if draft.status != RUNNING or draft.tokens or draft.waiting:
        return
    try:
        result = execution_result(draft)
        answer = _answer(draft, result)
    except TemplateError as fault:
        _fail_end(draft, fault)
        return
    emit_execution_end(draft, "execution_complete", COMPLETED, result, None)
    draft.status = COMPLETED
    draft.ended = Ended(COMPLETED, result, answer=answer)


def _fail_end(draft: Draft, fault: TemplateError) -> None:
    """`end.result` cannot be rendered: `end` failed, in place of its completion if that is of this turn.

    A visit ends once: where an `end` with an action completed in an earlier turn, only the execution fails.
    """
    end = draft.playbook.steps["end"]  # only `end` has something to render here
    error = template_error(end, fault)
    ended = [place for place, event in enumerate(draft.events) if event.type in VISIT_ENDS and event.step == end.name]
    if end.kind == "control":
        ordinal = emit_step_failed(draft, end, max(draft.visits(end), 1), error)
        track_ended(draft, end, "FAILED", ordinal)
    elif ended and draft.events[ended[-1]].type == "step_completed":
        failed = draft.events[ended[-1]]._replace(type="step_failed", status="FAILED", error=error)
        draft.events[ended[-1]] = failed
        track_ended(draft, end, "FAILED", ended[-1], failed.visit)
    fail_execution(draft, error)


def execution_result(draft: Draft) -> JSON:
    """`end.result` > the data of an `end` with an action > `end.save.data` > the data of the branch ends."""
    end = draft.playbook.end
    if end is not None and draft.end is not None:
        template = result_of_end(end)
        if template is not None:
            return _render(draft, template, draft.end)
        if end.kind != "control":
            return _data(draft, end.name)
    data = {step: _data(draft, step) for step in draft.ends}
    if len(data) == 1:
        return next(iter(data.values()))
    return data or None


def _answer(draft: Draft, result: JSON) -> JSON:
    """What a parent is told: the result, or the data of the step that it asked for (null where that never ran).

    The parent's readers unwrap it as any result, so data that looks like an envelope goes in one.
    """
    if draft.parent is None or draft.parent.return_step is None:
        return wrap(result)
    return wrap(_data(draft, draft.parent.return_step))


def _data(draft: Draft, step: str) -> JSON:
    found = draft.step_result(step)
    return None if found is None else found.data


def _render(draft: Draft, tree: Tree, end: Reached) -> JSON:
    insist_on_values(unfinished_of(draft, Given(end.inputs, end.left)), tree)
    return draft.render(tree, draft.scope(end.inputs, end.result))
