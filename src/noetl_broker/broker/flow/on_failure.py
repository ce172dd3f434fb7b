"""What starts when an execution has failed or is late: the playbook that `metadata.on_failure` or `on_late` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model.effects import OnFailureStart
from noetl_broker.broker.model.values import JSON, as_stored
from noetl_broker.broker.writing.events import count_undos
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.broker.model.event import Event
    from noetl_broker.playbook.model import OnFailure

KEY, LATE_KEY = "on_failure", "on_late"  # of the meta of an execution_start: the id of the execution that is its cause


def failed_before(start: Event) -> int | None:
    """The execution whose failure or lateness led to this start, also over children, forks and retries; or None."""
    failed = start.meta.get(KEY, start.meta.get(LATE_KEY)) if isinstance(start.meta, dict) else None
    return failed if type(failed) is int else None


def start_on_failure(draft: Draft, error: dict[str, JSON]) -> OnFailureStart | None:
    """What starts because the execution fails; None if its playbook names nothing.

    An execution that was started in this way starts nothing: an alarm that fails raises no alarm.
    """
    declared = draft.playbook.on_failure
    if declared is None or draft.state.failed_before is not None:
        return None
    payload = render_args(draft, declared, {"error": as_stored(error)})
    given: dict[str, JSON] = {
        "execution_id": draft.turn.execution_id,
        "path": draft.playbook.path,
        "step": error.get("step"),
        "error": error,
    }
    if draft.state.compensation is not None or draft.state.unknown:
        given["compensation"] = count_undos(draft)
    return OnFailureStart(declared.path, {**payload, **given})


def render_args(draft: Draft, declared: OnFailure, words: dict[str, JSON]) -> dict[str, JSON]:
    """The `args` of what starts. An alarm comes in any case: an argument whose template fails is left out.

    `args_error` says why.
    """
    payload: dict[str, JSON] = {}
    for key, tree in declared.args.items():
        try:
            payload[key] = draft.templates.render(tree, draft.templates.scope({}, None, words))
        except TemplateError as fault:
            payload.setdefault("args_error", {"message": fault.message, "template": fault.template, "at": fault.at})
    return payload
