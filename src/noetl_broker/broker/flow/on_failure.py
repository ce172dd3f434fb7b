"""What starts when an execution has failed: the playbook that `metadata.on_failure` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model.effects import OnFailureStart
from noetl_broker.broker.model.values import JSON, as_stored
from noetl_broker.broker.writing.events import count_undos
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.event import Event

KEY = "on_failure"  # of the meta of an execution_start: the id of the execution that failed


def failed_before(start: Event) -> int | None:
    """The execution whose failure led to this start, also over children, forks and retries; None for any other."""
    failed = start.meta.get(KEY) if isinstance(start.meta, dict) else None
    return failed if type(failed) is int else None


def start_on_failure(draft: Draft, error: dict[str, JSON]) -> OnFailureStart | None:
    """What starts because the execution fails; None if its playbook names nothing.

    An execution that was started in this way starts nothing: an alarm that fails raises no alarm. An argument whose
    template fails is left out, and `args_error` says why: an alarm comes in any case.
    """
    declared = draft.playbook.on_failure
    if declared is None or draft.state.failed_before is not None:
        return None
    payload: dict[str, JSON] = {}
    for key, tree in declared.args.items():
        try:
            payload[key] = draft.templates.render(tree, draft.templates.scope({}, None, {"error": as_stored(error)}))
        except TemplateError as fault:
            payload.setdefault("args_error", {"message": fault.message, "template": fault.template, "at": fault.at})
    given: dict[str, JSON] = {
        "execution_id": draft.turn.execution_id,
        "path": draft.playbook.path,
        "step": error.get("step"),
        "error": error,
    }
    if draft.state.compensation is not None or draft.state.unknown:
        given["compensation"] = count_undos(draft)
    return OnFailureStart(declared.path, {**payload, **given})
