"""The start of an execution: renders the workload and sends a token to `start`, or to where a fork continues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.arrivals.forks import MalformedFork, fork_of, take_over
from noetl_broker.broker.flow.failures import deadline_of, fail_execution, late_after_of
from noetl_broker.broker.flow.on_failure import failed_before
from noetl_broker.broker.flow.tags import tags_of
from noetl_broker.broker.holds.pauses import delay_execution, queue_execution
from noetl_broker.broker.holds.slots import take_slots, wanted_slots
from noetl_broker.broker.model.decision import Decision, ExecutionEnd
from noetl_broker.broker.model.effects import ExecutionBegun
from noetl_broker.broker.model.event import Emitted, Event, Turn
from noetl_broker.broker.model.limits import max_payload_keys_error, oversized_start
from noetl_broker.broker.model.values import JSON, as_stored
from noetl_broker.broker.state.state import FAILED, RUNNING, TO_START, Arrival, ExecutionState, Parent, is_live
from noetl_broker.broker.writing.errors import template_fault
from noetl_broker.playbook.value_schema import faults_of
from noetl_broker.template import TemplateError
from noetl_broker.template.durations import parse_moment

if TYPE_CHECKING:
    from datetime import datetime

    from noetl_broker.broker.draft.draft import Draft
    from noetl_broker.playbook.model import Playbook
    from noetl_broker.playbook.value_schema import ValueFault
    from noetl_broker.template import Path

PAYLOAD = "payload"  # the type of the error of a start whose workload breaks the schema
OTHER_BUCKET = "other_bucket"  # of the meta of a start that belongs elsewhere, and the type of its error
GIVEN_BY_BROKER = frozenset({"schedule", "signal"})  # keys that schedules and signals add


def dispatch_first_step(draft: Draft) -> None:
    """`execution_start`: render the workload, merge the payload over it, enter `start`."""
    draft.state.status = RUNNING
    draft.state.parent = parent_of(draft.event)
    draft.state.hops = hops_of(draft.event)
    draft.state.failed_before = failed_before(draft.event)
    draft.state.priority = priority_of_start(draft.event)
    payload = _payload(draft.event.context)
    refused = _other_bucket(draft) or _refused(draft, payload)
    if refused is not None:
        fail_execution(draft, refused)
        return
    try:
        workload = make_workload(draft, payload)
    except TemplateError as fault:
        fail_execution(draft, template_fault(fault))
        return
    tags = tags_of(draft)
    fork = fork_of(draft.event.meta)
    faults = payload_faults(draft.playbook, workload) if fork is None else []
    if faults:
        draft.add(ExecutionBegun(workload, tags=tags))
        fail_execution(draft, payload_error(faults))
        return
    try:
        limits = deadline_of(draft), late_after_of(draft)
    except TemplateError as fault:
        draft.add(ExecutionBegun(workload, tags=tags))
        fail_execution(draft, template_fault(fault))
        return
    return_step = draft.state.parent.return_step if draft.state.parent is not None else None
    if return_step is not None and return_step not in draft.playbook.steps:
        there = f"playbook {draft.playbook.path} has no step of that name"
        message = f"the parent asks for the data of step {return_step:.300}; {there}"
        fail_execution(draft, {"message": message, "type": "return_step"})
        return
    runs = _may_run(draft)
    deadline, late_after = limits if draft.state.status == RUNNING else (None, None)
    draft.add(ExecutionBegun(workload, deadline, tags, late_after))
    if runs:
        _begin(draft, fork)


def _begin(draft: Draft, fork: JSON) -> None:
    """Send a token to `start`, or to where a fork continues."""
    if fork is None:
        draft.arrivals.append(Arrival(TO_START, draft.playbook.start.name, {}))
        return
    try:
        take_over(draft, fork)
    except MalformedFork as malformed:
        fail_execution(draft, {"message": f"the fork in the meta of execution_start is malformed: {malformed}"})


def _may_run(draft: Draft) -> bool:
    """Take the slots that the start wants, or queue the execution; returns false if it ended."""
    try:
        draft.state.slots = wanted_slots(draft)
    except TemplateError as fault:
        fail_execution(draft, template_fault(fault))
        return False
    moment = moment_of(draft.event)
    if moment is not None and moment > draft.turn.at:
        delay_execution(draft, moment)
    elif draft.event.path_paused:
        queue_execution(draft, f"new executions of playbook {draft.playbook.path} are paused")
    elif draft.state.slots:
        take_slots(draft)
    return is_live(draft.state.status)


def _refused(draft: Draft, payload: JSON) -> dict[str, JSON] | None:
    """The error of a start that cannot be read, or whose payload is not a mapping."""
    if draft.event.oversize:
        return oversized_start(draft.event)
    if draft.event.broken:
        return {"message": "the context of execution_start is no JSON"}
    if not isinstance(payload, dict):
        # The store gives JSON that nests too deeply as text.
        deep = isinstance(payload, str) and payload.startswith(("{", "["))
        fault = "nests too deeply, see the bounds of a playbook's data" if deep else "is no mapping"
        return {"message": f"the workload in the context of execution_start {fault}: {payload!r:.100}"}
    over = max_payload_keys_error(draft.known.rules, payload)
    if over is not None:
        draft.add(ExecutionBegun({}))  # the rules that refused it are stored with it
    return over


def _other_bucket(draft: Draft) -> dict[str, JSON] | None:
    """The error of a start in the bucket of another playbook; None if this one may live there."""
    meta = draft.event.meta
    found = meta.get(OTHER_BUCKET) if isinstance(meta, dict) else None
    if not isinstance(found, dict):
        return None
    home, callers = found.get("bucket"), found.get("caller_bucket")
    message = (
        f"playbook {draft.playbook.path} has metadata.bucket: {home!s:.300}, and {found.get('caller')!s:.1000}, which"
        f" starts it, has {'none' if callers is None else callers!s:.300}: give both the same, or none to the former"
    )
    return {"message": message, "type": OTHER_BUCKET}


def parent_of(start: Event) -> Parent | None:
    """What the `execution_start` of a child says of its parent; None for any other execution."""
    parent = start.meta.get("parent") if isinstance(start.meta, dict) else None
    if not isinstance(parent, dict) or type(parent.get("depth")) is not int or type(parent.get("attempt")) is not int:
        return None
    step = parent.get("return_step")
    return Parent(max(parent["depth"], 1), step if isinstance(step, str) else None, parent["attempt"])


def hops_of(start: Event) -> int:
    """How many executions sent signals that led to this start, as its meta says."""
    hops = start.meta.get("hops") if isinstance(start.meta, dict) else None
    return hops if type(hops) is int and hops > 0 else 0


def moment_of(start: Event) -> datetime | None:
    """The moment at which an execution starts, as the meta of its start says; None: at once."""
    moment = start.meta.get("start_at") if isinstance(start.meta, dict) else None
    try:
        return None if moment is None else parse_moment(moment)
    except ValueError:  # inserted by hand
        return None


def priority_of_start(start: Event) -> int | None:
    """The priority that a start gives to jobs, as its meta says; None: none."""
    priority = start.meta.get("priority") if isinstance(start.meta, dict) else None
    return priority if type(priority) is int and -(2**31) <= priority < 2**31 else None


def make_workload(draft: Draft, payload: dict[str, JSON]) -> dict[str, JSON]:
    """The workload: the playbook's defaults, rendered in key order, with the payload merged over them.

    The payload is data and never rendered. Each default reads the payload and the defaults before it.
    """
    workload = dict(payload)
    draft.templates.set_workload(workload)
    defaults = draft.playbook.workload
    replaced = {
        template
        for key in defaults.keys() & payload.keys()
        for path, template in defaults[key].templates_by_path()
        if _payload_replaces_default(payload, (key, *path))
    }

    for key, tree in defaults.items():
        if not tree.constant:  # a template that reads the whole workload gets the keys so far
            draft.templates.set_workload(dict(workload))
        default = tree.render(draft.templates.scope({}, None), replaced.__contains__ if replaced else None)
        workload[key] = merge(default, payload[key]) if key in payload else default
    stored: dict[str, JSON] = as_stored(workload)
    draft.templates.set_workload(stored)
    return stored


def _payload_replaces_default(payload: JSON, path: Path) -> bool:
    """Whether the payload replaces the default at this path."""
    for part in path:
        if not isinstance(payload, dict) or isinstance(part, int):
            return True
        if part not in payload:
            return False
        payload = payload[part]
    return not isinstance(payload, dict)


def merge(default: JSON, payload: JSON) -> JSON:
    """Merge mappings key by key at all levels; any other value of the payload replaces the default."""
    if isinstance(default, dict) and isinstance(payload, dict):
        return {key: merge(default[key], payload[key]) if key in default and key in payload else
                payload.get(key, default.get(key)) for key in default | payload}  # fmt: skip
    return payload


def payload_faults(playbook: Playbook, workload: JSON) -> list[ValueFault]:
    """How a merged workload breaks the playbook's schema; what the broker itself puts into it is not checked."""
    if playbook.workload_schema is None:
        return []
    given = {key: value for key, value in workload.items() if key not in GIVEN_BY_BROKER}
    return [fault for fault in faults_of(playbook.workload_schema, given) if fault.path not in GIVEN_BY_BROKER]


def payload_error(faults: list[ValueFault]) -> dict[str, JSON]:
    """The error of a start whose workload breaks the schema; `places` has each fault as {path, message}."""
    listed = "; ".join(f"{fault.path or 'it'} {fault.message}" for fault in faults)
    places = [{"path": fault.path, "message": fault.message} for fault in faults]
    return {"message": f"the workload does not fit workload_schema: {listed}", "type": PAYLOAD, "places": places}


def reject_execution(start: Event, turn: Turn, error: dict[str, JSON]) -> tuple[ExecutionState, Decision]:
    """Fail an execution that cannot start: its playbook is missing or invalid."""
    failed = Emitted("execution_failed", FAILED, meta={"turn": turn.number}, error=error)
    decision = Decision("decided", events=(failed,), ended=ExecutionEnd(FAILED, None, error))
    return ExecutionState(status=FAILED, parent=parent_of(start)), decision


def _payload(context: JSON) -> JSON:
    if not isinstance(context, dict):
        return {} if context is None else context
    payload = context.get("workload")
    return {} if payload is None else payload
