"""The end of an execution: when nothing lives any more, and what its result is (spec section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.events import emit_execution_end, emit_step_failed
from noetl_broker.broker.failure import fail_execution, template_error
from noetl_broker.broker.model import JSON, Ended
from noetl_broker.broker.state import COMPLETED, RUNNING
from noetl_broker.broker.workflow import track_ended
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.template import Tree


def finalize_execution(draft: Draft) -> None:
    """Ends the execution if no token lives: `execution_complete` with its result."""
    if draft.status != RUNNING or draft.tokens or draft.waiting:
        return
    try:
        result = execution_result(draft)
    except TemplateError as fault:
        end = draft.playbook.steps["end"]  # only `end` has something to render here
        error = template_error(end, fault)
        ordinal = emit_step_failed(draft, end, max(draft.visits(end), 1), error)
        track_ended(draft, end, "FAILED", ordinal)
        fail_execution(draft, error)
        return
    emit_execution_end(draft, "execution_complete", COMPLETED, result, None)
    draft.status = COMPLETED
    draft.ended = Ended(COMPLETED, result)


def execution_result(draft: Draft) -> JSON:
    """`end.result` > the data of an `end` with an action > `end.save.data` > the data of the branch ends."""
    end = draft.playbook.end
    if end is not None and draft.end_reached:
        if end.result is not None:
            return _render(draft, end.result)
        if end.kind != "control" and draft.end_turn is not None:
            return draft.turn_result(draft.end_turn).data
        if end.save_data is not None:
            return _render(draft, end.save_data)
    data = {step: draft.turn_result(turn).data for step, turn in draft.ends.items()}
    if len(data) == 1:
        return next(iter(data.values()))
    return data or None


def _render(draft: Draft, tree: Tree) -> JSON:
    return draft.render(tree, draft.scope(draft.end_inputs, draft.end_turn))
