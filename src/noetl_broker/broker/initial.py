"""The start of an execution: its workload is made, and a token is sent to `start` (or to where a fork goes on)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.failure import fail_execution
from noetl_broker.broker.forks import Malformed, fork_of, take_over
from noetl_broker.broker.given import NOTHING_GIVEN
from noetl_broker.broker.lengths import oversized_start, too_many_keys
from noetl_broker.broker.model import JSON, Begun, Decision, Emitted, Ended, Event, Turn, as_stored
from noetl_broker.broker.state import FAILED, RUNNING, Arrival, ExecutionState, Parent
from noetl_broker.broker.unfinished import unfinished_of
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft
    from noetl_broker.template import Path, Template

TO_START = -1  # the arc that leads to `start`: it is in no document


def dispatch_first_step(draft: Draft) -> None:
    """`execution_start`: render the workload, merge the payload over it, enter `start`."""
    draft.status = RUNNING
    draft.parent = parent_of(draft.event)
    payload = _payload(draft.event.context)
    refused = _refused(draft, payload)
    if refused is not None:
        fail_execution(draft, refused)
        return
    try:
        workload = make_workload(draft, payload)
    except TemplateError as fault:
        fail_execution(draft, {"message": fault.message, "template": fault.template, "at": fault.at})
        return
    asked = draft.parent.return_step if draft.parent is not None else None
    if asked is not None and asked not in draft.playbook.steps:
        there = f"playbook {draft.playbook.path} has no step of that name"
        message = f"the parent asks for the data of step {asked:.300}; {there}"
        fail_execution(draft, {"message": message, "type": "return_step"})
        return
    draft.begun = Begun(workload, draft.playbook.deadline)
    fork = fork_of(draft.event.meta)
    if fork is None:
        draft.arrivals.append(Arrival(TO_START, draft.playbook.start.name, {}))
        return
    try:
        take_over(draft, fork)
    except Malformed as malformed:
        fail_execution(draft, {"message": f"the fork in the meta of execution_start is malformed: {malformed}"})


def _refused(draft: Draft, payload: JSON) -> dict[str, JSON] | None:
    """Why a start cannot be read, or its payload is none."""
    if draft.event.oversize:
        return oversized_start(draft.event)
    if draft.event.broken:
        return {"message": "the context of execution_start is no JSON"}
    if not isinstance(payload, dict):
        # The store hands on as text what nests too deeply to be read.
        deep = isinstance(payload, str) and payload.startswith(("{", "["))
        fault = "nests too deeply, see the bounds of a playbook's data" if deep else "is no mapping"
        return {"message": f"the workload in the context of execution_start {fault}: {payload!r:.100}"}
    over = too_many_keys(draft, payload)
    if over is not None:
        draft.begun = Begun({}, draft.playbook.deadline)  # the rules by which it was refused are kept with it
    return over


def parent_of(start: Event) -> Parent | None:
    """A child knows how deep it stands, which step's data its parent asked for, and which start of it this is.

    However early it fails, its answer must say which start it was: else it would pass for one that was given up.
    """
    told = start.meta.get("parent") if isinstance(start.meta, dict) else None
    if not isinstance(told, dict) or type(told.get("depth")) is not int or type(told.get("attempt")) is not int:
        return None
    step = told.get("return_step")
    return Parent(max(told["depth"], 1), step if isinstance(step, str) else None, told["attempt"])


def make_workload(draft: Draft, payload: dict[str, JSON]) -> dict[str, JSON]:
    """The defaults of the playbook, rendered in key order and seeing the payload, with the payload merged over them.

    The payload is data: it is never rendered. Each default sees the payload and the defaults before it.
    """
    workload = dict(payload)
    draft.set_workload(workload)
    defaults = draft.playbook.workload
    unfinished = unfinished_of(draft, NOTHING_GIVEN)
    replaced = {
        template
        for key in defaults.keys() & payload.keys()
        for path, template in defaults[key].leaving(lambda _: True)
        if _replaces(payload, (key, *path))
    }

    def leave(template: Template) -> bool:
        return template in replaced or (unfinished is not None and unfinished.read_by(template) is not None)

    for key, tree in defaults.items():
        if not tree.constant:  # one that hands on all of the workload gets it as it is so far, and not itself
            draft.set_workload(dict(workload))
        default = draft.render(tree, draft.scope({}, None), leave if replaced or unfinished is not None else None)
        workload[key] = merge(default, payload[key]) if key in payload else default
    stored: dict[str, JSON] = as_stored(workload)
    draft.set_workload(stored)
    return stored


def _replaces(payload: JSON, path: Path) -> bool:
    """Whether the payload has something at a default's path that replaces it, whatever the default would have been."""
    for part in path:
        if not isinstance(payload, dict) or isinstance(part, int):
            return True
        if part not in payload:
            return False
        payload = payload[part]
    return not isinstance(payload, dict)


def merge(default: JSON, payload: JSON) -> JSON:
    """Mappings key by key, all the way down; anything else of the payload replaces the default."""
    if isinstance(default, dict) and isinstance(payload, dict):
        return {key: merge(default[key], payload[key]) if key in default and key in payload else
                payload.get(key, default.get(key)) for key in default | payload}  # fmt: skip
    return payload


def reject_execution(start: Event, turn: Turn, error: dict[str, JSON]) -> tuple[ExecutionState, Decision]:
    """The end of an execution that cannot start: its playbook is not there, or is none."""
    failed = Emitted("execution_failed", FAILED, meta={"turn": turn.number}, error=error)
    decision = Decision("decided", events=(failed,), ended=Ended(FAILED, None, error))
    return ExecutionState(status=FAILED, parent=parent_of(start)), decision


def _payload(context: JSON) -> JSON:
    if not isinstance(context, dict):
        return {} if context is None else context
    payload = context.get("workload")
    return {} if payload is None else payload
