"""What an operator does with one execution. `bulk` does it with many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noetl_broker.broker.state.state import CANCELLED, COMPENSATING, COMPLETED, FAILED, PAUSED, QUEUED, RUNNING
from noetl_broker.errors import BrokerError, OperatorFault
from noetl_broker.playbook import compile_playbook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.service import recoveries, undos
from noetl_broker.service.action import Caller, Cost, Role, action
from noetl_broker.service.field_errors import FieldFault
from noetl_broker.service.models import actions as models
from noetl_broker.service.models.base import OneExecution
from noetl_broker.service.typed_json import json_text
from noetl_broker.store.admin import executions, signals
from noetl_broker.store.connect.connection import Connection, call

_LIVE = (QUEUED, RUNNING, PAUSED)
_ENDED = (COMPLETED, FAILED, CANCELLED)
# In which statuses an execution can be acted on so; dead letters, undos and earlier retries decide the rest.
STATUSES_OF: Mapping[str, tuple[str, ...]] = {
    "retry": (FAILED,),
    "fork": (*_LIVE, *_ENDED),
    "pause": (RUNNING, QUEUED),
    "resume": (PAUSED,),
    "cancel": _LIVE,
    "signal": _LIVE,
    "again": _ENDED,
    "abandon": (COMPENSATING,),
    "undo": _ENDED,
    "erase": _ENDED,
}


def on_version(
    version: int | str | None, rules: PlaybookRules, *, or_from_start: bool = False
) -> recoveries.OnVersion | None:
    """The version that a request asks for; None: that of each execution."""
    if version is None:
        if or_from_start:
            raise OperatorFault(
                "to start anew is for another version: name it, or leave this out; without it, the way is the same"
            )
        return None
    number = None if version == "latest" else int(version)
    return recoveries.OnVersion(number, rules, or_from_start=or_from_start)


@action(Role.OPERATOR, models.Requested)
async def cancel_execution(connection: Connection, caller: Caller, given: models.ReasonRequest) -> Any:
    """Cancel an execution and its children. The broker does it when it reads the request."""
    return await _request(connection, "cancel_execution", given.execution_id, given.reason, caller.by)


@action(Role.OPERATOR, models.Requested)
async def pause_execution(connection: Connection, caller: Caller, given: models.ReasonRequest) -> Any:
    """Pause an execution and its children. Leased jobs go on."""
    return await _request(connection, "pause_execution", given.execution_id, given.reason, caller.by)


@action(Role.OPERATOR, models.Requested)
async def resume_execution(connection: Connection, caller: Caller, given: OneExecution) -> Any:
    """Resume a paused execution and its children."""
    return await _request(connection, "resume_execution", given.execution_id, caller.by)


@action(Role.OPERATOR, models.Requested)
async def abandon_execution(connection: Connection, caller: Caller, given: models.ReasonRequest) -> Any:
    """Give up the undo of an execution: it fails, and lists what is left. An undo that runs is stopped."""
    return await _request(connection, "abandon_execution", given.execution_id, given.reason, caller.by)


async def _request(connection: Connection, function: str, execution_id: int, *arguments: str | None) -> dict[str, Any]:
    """Ask the broker, and give the answer. A producer, who may cancel, may not read the status."""
    requested = await call(connection, function, execution_id, *arguments)
    status = await executions.find_status(connection, execution_id)
    if status is None and requested:
        status = "RUNNING"
    return {"execution_id": execution_id, "requested": requested, "status": status}


@action(Role.PRODUCER, models.SentToExecution)
async def signal_execution(connection: Connection, caller: Caller, given: models.SignalExecutionRequest) -> Any:
    """Send a signal to one execution: to its waits without `key`. It is kept until the execution ends."""
    sent = await send_to_execution(connection, caller, given)
    if sent is None:
        raise BrokerError(f"execution {given.execution_id} has ended, so nothing was sent")
    keys: list[str] = []
    if caller.role is Role.OPERATOR:
        keys = await signals.keys_of_waits(connection, given.execution_id, given.name)
    return {"signal_id": sent, "other_keys": [] if str(given.execution_id) in keys else keys}


@action(Role.PRODUCER, int)
async def send_to_execution(connection: Connection, caller: Caller, given: models.SignalExecutionRequest) -> Any:
    """Send a signal to one execution; gives its id, None if the execution has ended."""
    text = None if given.payload is None else json_text(given.payload)
    return await signals.signal_execution(
        connection, given.execution_id, given.name, text, idempotency_key=given.idempotency_key, by=caller.by
    )


@action(Role.OPERATOR, models.RetriedView, cost=Cost.SHORT)
async def retry_execution(connection: Connection, caller: Caller, given: models.RetryRequest) -> Any:
    """Continue a failed execution from its failed step as a new one; each retry gives the same new execution.

    With `version` it goes on only if that version decides the same up to the failure. Of a running execution, its dead
    letters go back to the broker.
    """
    on = on_version(given.version, caller.rules, or_from_start=given.or_from_start)
    return await recoveries.recover(connection, given.execution_id, caller.rules, on, caller.by)


@action(Role.OPERATOR, models.RetryPreview, cost=Cost.SHORT)
async def preview_retry(connection: Connection, caller: Caller, given: models.RetryRequest) -> Any:
    """Say what a retry of a failed execution would begin with, and which newer version its playbook has."""
    on = on_version(given.version, caller.rules, or_from_start=given.or_from_start)
    row = await executions.find_execution(connection, given.execution_id)
    if row["status"] != FAILED:
        return {"outlook": None, "latest": None}
    outlook = await recoveries.preview_retry(connection, given.execution_id, caller.rules, on)
    return {"outlook": outlook, "latest": await recoveries.newer_version(connection, row)}


@action(Role.OPERATOR, models.ForkedView, cost=Cost.SHORT)
async def fork_execution(connection: Connection, caller: Caller, given: models.ForkRequest) -> Any:
    """Start an execution from a step of another, with its results."""
    return await _fork(connection, caller, given, on=on_version(given.version, caller.rules))


@action(Role.OPERATOR, models.ForkedView, cost=Cost.SHORT)
async def fork_on_playbook(connection: Connection, caller: Caller, given: models.ForkOnPlaybook) -> Any:
    """Start an execution from a step of another, on a playbook that is registered unless it already is."""
    return await _fork(connection, caller, given, other=other_playbook(given.text, given.file, caller.rules))


def other_playbook(text: str, file: str, rules: PlaybookRules) -> recoveries.OtherPlaybook:
    """The playbook of a text, for forks."""
    return recoveries.OtherPlaybook(compile_playbook(text.encode(), file=file, rules=rules), text, None)


async def _fork(connection: Connection, caller: Caller, given: models.ForkRequest, **onto: Any) -> dict[str, Any]:
    """Fork; `onto` is the version or the playbook of `ForkFrom`."""
    start = recoveries.ForkFrom(given.from_step, given.values, **onto)
    forked = await recoveries.fork_execution(
        connection, given.execution_id, start, caller.rules, given.idempotency_key, caller.by
    )
    new = forked.registered if forked.registered is not None and forked.registered.new else None
    row = await executions.find_execution(connection, forked.execution_id)
    return ({} if new is None else {"registered": f"{new.path} version {new.version}"}) | {
        "from": given.from_step,
        "path": row["path"],
        "version": row["version"],
        "execution_id": forked.execution_id,
        "forked_from": given.execution_id,
        "taken": [*forked.plan.taken],
        "left_out": [*forked.plan.left_out],
    }


@action(Role.OPERATOR, models.Undone, cost=Cost.SHORT)
async def undo_execution(connection: Connection, caller: Caller, given: models.UndoRequest) -> Any:
    """Undo what an execution did that has ended, the last success first; or settle a step that was undone by hand."""
    one = given.execution_id
    if given.settle is not None:
        if given.reason is None:
            raise FieldFault({"reason": "say who undid it, and how"})
        settled, requested = await call(connection, "settle_undo", one, given.settle, given.reason, caller.by), True
        said = f"settling {settled} of step {given.settle} of execution {one}"
    elif given.reason is not None:
        raise FieldFault({"reason": "it is for a step that was undone by hand: name it with `settle`"})
    else:
        on = on_version(given.version, caller.rules)
        requested = await undos.undo_execution(connection, one, unknown=given.unknown, on=on, by=caller.by)
        said = f"execution {one} undoes what it did" if requested else await undos.why_nothing(connection, one)
    status = await executions.find_status(connection, one)
    return {"execution_id": one, "requested": requested, "status": status, "said": said}


@action(Role.OPERATOR, models.PutBack)
async def reevaluate_execution(connection: Connection, _caller: Caller, given: OneExecution) -> Any:
    """Give the dead letters and the lost mail of an execution back to the broker."""
    return {"execution_id": given.execution_id, "put_back": await call(connection, "put_back", given.execution_id)}


@action(Role.OPERATOR, models.ErasedView, cost=Cost.LONG)
async def erase_execution(connection: Connection, caller: Caller, given: models.EraseRequest) -> Any:
    """Erase the values of an ended execution, of what it started, and of its forks and retries; or preview it.

    Statuses, times, decisions and names of steps are kept. It cannot be taken back.
    """
    answer = await call(connection, "erase_execution", given.execution_id, given.preview, caller.by)
    return {"execution_id": given.execution_id, **answer}
