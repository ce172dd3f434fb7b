"""The start of an execution: its workload is made, and a token is sent to `start` (or to where a fork goes on)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.failure import fail_execution
from noetl_broker.broker.forks import Malformed, fork_of, take_over
from noetl_broker.broker.model import JSON, Begun, Decision, Emitted, Ended, Turn
from noetl_broker.broker.state import FAILED, RUNNING, Arrival, ExecutionState, Parent
from noetl_broker.template import TemplateError

if TYPE_CHECKING:
    from noetl_broker.broker.draft import Draft

TO_START = -1  # the arc that leads to `start`: it is in no document


def dispatch_first_step(draft: Draft) -> None:
    """`execution_start`: render the workload, merge the payload over it, enter `start`."""
    draft.status = RUNNING
    if draft.event.broken:
        fail_execution(draft, {"message": "the context of execution_start is no JSON"})
        return
    payload = _payload(draft.event.context)
    if not isinstance(payload, dict):
        fail_execution(
            draft, {"message": f"the workload in the context of execution_start is no mapping: {payload!r:.100}"}
        )
        return
    try:
        workload = make_workload(draft, payload)
    except TemplateError as fault:
        fail_execution(draft, {"message": fault.message, "template": fault.template, "at": fault.at})
        return
    _remember_parent(draft)
    draft.begun = Begun(workload, draft.playbook.deadline)
    fork = fork_of(draft.event.meta)
    if fork is None:
        draft.arrivals.append(Arrival(TO_START, draft.playbook.start.name, {}))
        return
    try:
        take_over(draft, fork)
    except Malformed as malformed:
        fail_execution(draft, {"message": f"the fork in the meta of execution_start is malformed: {malformed}"})


def _remember_parent(draft: Draft) -> None:
    """A child knows how deep it stands, which step's data its parent asked for, and which start of it this is."""
    meta = draft.event.meta
    told = meta.get("parent") if isinstance(meta, dict) else None
    if isinstance(told, dict) and type(told.get("depth")) is int and type(told.get("attempt")) is int:
        step = told.get("return_step")
        draft.parent = Parent(max(told["depth"], 1), step if isinstance(step, str) else None, told["attempt"])


def make_workload(draft: Draft, payload: dict[str, JSON]) -> dict[str, JSON]:
    """The defaults of the playbook, rendered in key order and seeing the payload, with the payload merged over them.

    The payload is data: it is never rendered. Each default sees the payload and the defaults before it.
    """
    workload = dict(payload)
    draft.set_workload(workload)
    for key, tree in draft.playbook.workload.items():
        if key in payload and not isinstance(payload[key], dict):
            continue  # replaced, whatever the default would have been
        default = draft.render(tree, draft.scope({}, None))
        workload[key] = merge(default, payload[key]) if key in payload else default
    ordered = {key: workload[key] for key in draft.playbook.workload} | workload
    draft.set_workload(ordered)
    return ordered


def merge(default: JSON, payload: JSON) -> JSON:
    """Mappings key by key, all the way down; anything else of the payload replaces the default."""
    if isinstance(default, dict) and isinstance(payload, dict):
        return {key: merge(default[key], payload[key]) if key in default and key in payload else
                payload.get(key, default.get(key)) for key in default | payload}  # fmt: skip
    return payload


def reject_execution(turn: Turn, error: dict[str, JSON]) -> tuple[ExecutionState, Decision]:
    """The end of an execution that cannot start: its playbook is not there, or is none."""
    failed = Emitted("execution_failed", FAILED, meta={"turn": turn.number}, error=error)
    return ExecutionState(status=FAILED), Decision("decided", events=(failed,), ended=Ended(FAILED, None, error))


def _payload(context: JSON) -> JSON:
    if not isinstance(context, dict):
        return {} if context is None else context
    payload = context.get("workload")
    return {} if payload is None else payload
