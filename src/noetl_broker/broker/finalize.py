"""The end of an execution: it ends when nothing is open or waiting. Its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.compensation import go_on_compensating
from noetl_broker.broker.flow.failures import fail_execution
from noetl_broker.broker.model.decision import ExecutionEnd
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import COMPLETED, RUNNING
from noetl_broker.broker.undo.draining import keep_draining
from noetl_broker.broker.writing.errors import template_error
from noetl_broker.broker.writing.events import emit_execution_end, emit_step_failed
from noetl_broker.broker.writing.workflow import track_ended
from noetl_broker.template import TemplateError, wrap

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.state.state import EndReached
    from noetl_broker.template import Tree


VISIT_ENDS = frozenset({"step_completed", "step_failed"})


def finalize_execution(draft: Draft) -> None:
    """End the execution if no visit is open and no token waits: `execution_complete` with the result."""
    if draft.state.undo or draft.playbook.undoes or draft.state.compensation is not None:
        keep_draining(draft)
        go_on_compensating(draft)
    if draft.state.status != RUNNING or draft.state.tokens or draft.state.waiting:
        return
    try:
        result = execution_result(draft)
        answer = _answer(draft, result)
    except TemplateError as fault:
        _fail_end(draft, fault)
        go_on_compensating(draft)
        return
    emit_execution_end(draft, "execution_complete", COMPLETED, result, None)
    draft.state.status = COMPLETED
    draft.writes.ended = ExecutionEnd(COMPLETED, result, answer=answer, undo=draft.state.undo > 0)


def _fail_end(draft: Draft, fault: TemplateError) -> None:
    """Fail `end`, because `end.result` cannot be rendered; its completion in this turn is replaced.

    If an `end` with an action completed in an earlier turn, only the execution fails: a visit ends once.
    """
    end = draft.playbook.steps["end"]  # only `end` has templates here
    error = template_error(end, fault)
    ended = [
        index for index, event in enumerate(draft.writes.events) if event.type in VISIT_ENDS and event.step == end.name
    ]
    if not end.has_action:
        ordinal = emit_step_failed(draft, end, max(draft.state.visits(end), 1), error)
        track_ended(draft, end, "FAILED", ordinal)
    elif ended and draft.writes.events[ended[-1]].type == "step_completed":
        failed = draft.writes.events[ended[-1]]._replace(type="step_failed", status="FAILED", error=error)
        draft.writes.events[ended[-1]] = failed
        track_ended(draft, end, "FAILED", ended[-1], failed.visit)
    fail_execution(draft, error)


def execution_result(draft: Draft) -> JSON:
    """The first of: `end.result`, the data of an `end` with an action, `end.save.data`, the data of the branch ends."""
    end = draft.playbook.end
    if end is not None and draft.state.end is not None:
        template = end.result_template
        if template is not None:
            return _render(draft, template, draft.state.end)
        if end.has_action:
            return _data(draft, end.name)
    data = {step: _data(draft, step) for step in draft.state.ends}
    if len(data) == 1:
        return next(iter(data.values()))
    return data or None


def _answer(draft: Draft, result: JSON) -> JSON:
    """The answer to the parent: the result, or the data of its `return_step` (null if that never ran).

    The parent unwraps it as any result, so data that looks like an envelope is put into one.
    """
    if draft.state.parent is None or draft.state.parent.return_step is None:
        return wrap(result)
    return wrap(_data(draft, draft.state.parent.return_step))


def _data(draft: Draft, step: str) -> JSON:
    found = draft.templates.step_result(step)
    return None if found is None else found.data


def _render(draft: Draft, tree: Tree, end: EndReached) -> JSON:
    return draft.templates.render(tree, draft.templates.scope(end.inputs, end.result))
