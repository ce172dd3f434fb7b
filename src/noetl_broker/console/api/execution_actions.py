"""What an operator does with one execution."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from noetl_broker.client import json_text
from noetl_broker.console.access import Operator
from noetl_broker.console.problem import Refusal
from noetl_broker.console.services import Pooled, Rules, ShortWork
from noetl_broker.console.values import ExecutionId, Id
from noetl_broker.errors import OperatorFault
from noetl_broker.operations import recoveries, undos
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.playbook.plain_values import LARGEST_VERSION, NAME_CHARS
from noetl_broker.store.admin import executions, recovery, signals, undo
from noetl_broker.store.connect.connection import Connection

router = APIRouter(prefix="/executions/{execution_id}", tags=["executions"])

MOST_FIELDS = 1_000  # of a body; more are not looked at one by one
LONGEST_TEXT = 1_000  # characters of a reason, a name or a key
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=LONGEST_TEXT, description="one key does it once, however often it is sent"),
]


def is_given(*names: str) -> dict[str, Any]:
    """What a document says of an object that has one of these fields, and not as null."""
    return {"anyOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]}


class Given(BaseModel):
    """The body of a request; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_many_fields(cls, given: Any) -> Any:
        """Many unknown fields are one error: to make one of each takes seconds."""
        if isinstance(given, dict) and len(given) > MOST_FIELDS:
            raise ValueError(f"it has {len(given):,} fields; these are known: {', '.join(cls.model_fields)}")
        return given


class Nothing(Given):
    """An empty body."""


Version = Annotated[int, Field(ge=1, le=LARGEST_VERSION)]
OnVersion = Annotated[
    Version | Literal["latest"] | None, Field(description="another version of the playbook, on which it goes on")
]
OrFromStart = Annotated[
    StrictBool, Field(description="with `version`: start anew where the way so far would have been another on it")
]


def on_version(
    version: int | Literal["latest"] | None, rules: PlaybookRules, *, or_from_start: bool = False
) -> recoveries.OnVersion | None:
    """The version that a body asks for; None: that of each execution."""
    if version is None:
        if or_from_start:
            raise OperatorFault("`or_from_start` is for `version`: without it, the way is the same")
        return None
    return recoveries.OnVersion(None if version == "latest" else version, rules, or_from_start=or_from_start)


class RetryRequest(Given):
    """The version. Without it, the retry continues on the version of the execution."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"properties": {"or_from_start": {"const": False}}}, is_given("version")]}
    )

    version: OnVersion = None
    or_from_start: OrFromStart = False


class WithReason(Given):
    """A reason, which is stored with the execution."""

    reason: str | None = Field(None, max_length=LONGEST_TEXT)


class Requested(BaseModel):
    """Whether the broker was asked: false where the execution has ended."""

    execution_id: Id
    requested: bool
    status: str = Field(description="the status before the broker has read the request")


class SignalToExecution(Given):
    """A signal to one execution."""

    name: str = Field(min_length=1, max_length=NAME_CHARS)
    payload: Any = None


class SentToExecution(BaseModel):
    """The signal that was sent."""

    signal_id: Id
    other_keys: list[str] = Field(
        description="where no wait takes the signal: the keys of the open waits for its name; send it by one of them"
    )


class RetriedView(BaseModel):
    """The execution that continues a failed one; of a running one, how many events went back to the broker."""

    execution_id: Id
    recovered_as: Id | None = None
    version: int | None = Field(None, description="another version on which it goes on")
    anew: str | None = Field(None, description="why it starts from the start on that version")
    steps: list[str] = Field(default_factory=list, description="where it begins")
    taken: list[str] = Field(default_factory=list, description="steps whose results it has")
    put_back: int | None = None


class ForkRequest(Given):
    """The step to start from, and results to use in place of the recorded ones."""

    from_step: str = Field(alias="from", min_length=1, max_length=LONGEST_TEXT)
    version: OnVersion = None
    values: dict[str, Any] = Field(
        default_factory=dict, alias="set", description="results by step, in place of the recorded ones"
    )


class ForkedView(BaseModel):
    """The new execution, and the steps whose results it has."""

    execution_id: Id
    forked_from: Id
    taken: list[str]
    left_out: list[str] = Field(description="steps that the other version lacks")


UndoVersion = Annotated[
    Version | Literal["latest"] | None, Field(description="another version of the playbook, whose `compensate` is used")
]


class UndoRequest(Given):
    """What to undo."""

    unknown: StrictBool = Field(default=False, description="also what may not have happened")
    version: UndoVersion = None


class Undone(BaseModel):
    """The execution that undoes what another one left."""

    execution_id: Id
    undone_by: Id


class PutBack(BaseModel):
    """How many events went back to the broker."""

    execution_id: Id
    put_back: int


@router.post("/cancel", status_code=HTTPStatus.ACCEPTED, response_model=Requested)
async def cancel_execution(
    _caller: Operator, connections: Pooled, execution_id: ExecutionId, given: WithReason | None = None
) -> Any:
    """Cancel an execution and its children. The broker does it when it reads the request."""
    async with connections.borrow() as connection:
        requested = await executions.cancel_execution(connection, execution_id, _reason(given))
        return await _requested(connection, execution_id, requested=requested)


@router.post("/pause", status_code=HTTPStatus.ACCEPTED, response_model=Requested)
async def pause_execution(
    _caller: Operator, connections: Pooled, execution_id: ExecutionId, given: WithReason | None = None
) -> Any:
    """Pause an execution and its children. Leased jobs go on."""
    async with connections.borrow() as connection:
        requested = await executions.pause_execution(connection, execution_id, _reason(given))
        return await _requested(connection, execution_id, requested=requested)


@router.post("/resume", status_code=HTTPStatus.ACCEPTED, response_model=Requested)
async def resume_execution(
    _caller: Operator, connections: Pooled, execution_id: ExecutionId, _given: Nothing | None = None
) -> Any:
    """Resume a paused execution and its children."""
    async with connections.borrow() as connection:
        requested = await executions.resume_execution(connection, execution_id)
        return await _requested(connection, execution_id, requested=requested)


async def _requested(connection: Any, execution_id: int, *, requested: bool) -> dict[str, Any]:
    row = await executions.find_execution(connection, execution_id)
    return {"execution_id": execution_id, "requested": requested, "status": row["status"]}


def _reason(given: WithReason | None) -> str | None:
    return None if given is None else given.reason


@router.post("/signals", status_code=HTTPStatus.CREATED, response_model=SentToExecution)
async def signal_execution(
    _caller: Operator,
    connections: Pooled,
    execution_id: ExecutionId,
    given: SignalToExecution,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Send a signal to one execution: to its waits without `key`. It is kept until the execution ends."""
    text = None if given.payload is None else json_text(given.payload)
    async with connections.borrow() as connection:
        sent = await signals.signal_execution(
            connection, execution_id, given.name, text, idempotency_key=idempotency_key
        )
        keys = await signals.keys_of_waits(connection, execution_id, given.name)
    if sent is None:
        raise Refusal(HTTPStatus.CONFLICT, f"execution {execution_id} has ended, so nothing was sent")
    return {"signal_id": sent, "other_keys": [] if str(execution_id) in keys else keys}


@router.post("/retry", status_code=HTTPStatus.CREATED, response_model=RetriedView)
async def retry_execution(
    _caller: Operator, work: ShortWork, rules: Rules, execution_id: ExecutionId, given: RetryRequest | None = None
) -> Any:
    """Continue a failed execution from its failed step as a new one; each retry gives the same new execution.

    With `version` it goes on only if that version decides the same up to the failure. Of a running execution, its dead
    letters go back to the broker.
    """
    asked = given or RetryRequest()
    on = on_version(asked.version, rules, or_from_start=asked.or_from_start)
    retried = await work.run(lambda connection: recoveries.recover(connection, execution_id, rules, on))
    return retried.as_document()


@router.post("/fork", status_code=HTTPStatus.CREATED, response_model=ForkedView)
async def fork_execution(
    _caller: Operator,
    work: ShortWork,
    rules: Rules,
    execution_id: ExecutionId,
    given: ForkRequest,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Start an execution from a step of another, with its results."""

    async def fork(connection: Connection) -> recoveries.Forked:
        on = on_version(given.version, rules)
        other = None if on is None else await on.of(connection, execution_id)
        return await recoveries.fork_execution(
            connection, execution_id, given.from_step, rules, other=other, values=given.values, key=idempotency_key
        )

    forked = await work.run(fork)
    return {
        "execution_id": forked.execution_id,
        "forked_from": execution_id,
        "taken": [wanted.step for wanted in forked.plan.taken],
        "left_out": [*forked.plan.left_out],
    }


@router.post("/undo", status_code=HTTPStatus.CREATED, response_model=Undone)
async def undo_execution(
    _caller: Operator, work: ShortWork, rules: Rules, execution_id: ExecutionId, given: UndoRequest | None = None
) -> Any:
    """Undo what is left of an execution that has ended, in a new execution. The last success is undone first."""
    asked = given or UndoRequest()
    on = on_version(asked.version, rules)
    new = await work.run(
        lambda connection: undos.undo_execution(connection, execution_id, unknown=asked.unknown, on=on)
    )
    return {"execution_id": execution_id, "undone_by": new}


@router.post("/abandon", status_code=HTTPStatus.ACCEPTED, response_model=Requested)
async def abandon_execution(
    _caller: Operator, connections: Pooled, execution_id: ExecutionId, given: WithReason | None = None
) -> Any:
    """Give up the undo of an execution: it fails, and lists what is left. An undo that runs is stopped."""
    async with connections.borrow() as connection:
        requested = await undo.abandon_execution(connection, execution_id, _reason(given))
        return await _requested(connection, execution_id, requested=requested)


@router.post("/reevaluate", response_model=PutBack)
async def reevaluate_execution(
    _caller: Operator, connections: Pooled, execution_id: ExecutionId, _given: Nothing | None = None
) -> Any:
    """Give the dead letters and the lost mail of an execution back to the broker."""
    async with connections.borrow() as connection:
        return {"execution_id": execution_id, "put_back": await recovery.put_back(connection, execution_id)}
