"""What is done with executions, one or many, and what the answers have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from noetl_broker.service.models.base import (
    LONGEST_TEXT,
    MOST_ROWS,
    UNANSWERED,
    Given,
    IdempotencyKey,
    OneExecution,
    OnVersion,
    OrFromStart,
    SomeName,
    Status,
    Tags,
    Text,
    Version,
    WithKey,
    is_given,
)
from noetl_broker.service.models.executions import ListExecutions
from noetl_broker.service.models.values import GivenId, Id, IdOfBody, Time

MOST_TREATED = 500  # executions of one request
_FILTER = is_given("path", "status", "error", "step", "since", "until", "version", "tag", "key")
_ALL: dict[str, Any] = {"required": ["all"], "properties": {"all": {"const": True}}}

Bulk = Literal["cancel", "pause", "resume", "retry", "fork", "reevaluate"]
BulkOrErase = Literal[Bulk, "erase"]
UndoVersion = Annotated[
    Version | Literal["latest"] | None, Field(description="another version of the playbook, whose `compensate` is used")
]


class RetryRequest(OneExecution):
    """The version. Without it, the retry continues on the version of the execution."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"properties": {"or_from_start": {"const": False}}}, is_given("version")]}
    )

    version: OnVersion = None
    or_from_start: OrFromStart = False


class ReasonRequest(OneExecution):
    """A reason, which is stored with the execution."""

    reason: str | None = Field(None, max_length=LONGEST_TEXT, description="stored with the execution")


class Requested(BaseModel):
    """Whether the broker was asked: false where the execution has ended."""

    execution_id: Id
    requested: bool
    status: str = Field(description="the status before the broker has read the request")


class SignalExecutionRequest(OneExecution):
    """A signal to one execution."""

    name: SomeName
    payload: Any = None
    idempotency_key: IdempotencyKey = None


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


class OutlookView(BaseModel):
    """Whether an execution can be retried, and what the retry would begin with, or why it cannot."""

    goes_on: bool
    says: str


class RetryPreview(BaseModel):
    """What a retry would do; null: the execution has not failed."""

    outlook: OutlookView | None
    latest: int | None = Field(description="the latest version of the playbook, where that is newer")


class ForkRequest(OneExecution):
    """The step to start from, and results to use in place of the recorded ones."""

    from_step: str = Field(alias="from", min_length=1, max_length=LONGEST_TEXT)
    version: OnVersion = None
    values: dict[str, Any] = Field(
        default_factory=dict, alias="set", description="results by step, in place of the recorded ones"
    )
    idempotency_key: IdempotencyKey = None


class ForkOnPlaybook(ForkRequest):
    """A fork on a playbook that may not be registered yet: its text, and the name of its file."""

    text: str
    file: str


class ForkedView(BaseModel):
    """The new execution, and the steps whose results it has."""

    execution_id: Id
    forked_from: Id
    taken: list[str]
    left_out: list[str] = Field(description="steps that the other version lacks")


class UndoRequest(OneExecution):
    """What to undo, or what somebody undid by hand."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"settle": {"const": None}, "reason": {"const": None}}},
                {"allOf": [is_given("settle"), is_given("reason")]},
            ]
        }
    )

    unknown: StrictBool = Field(default=False, description="also what may not have happened")
    version: UndoVersion = None
    settle: str | None = Field(
        None, min_length=1, max_length=LONGEST_TEXT, description="a step that was undone by hand; nothing else is done"
    )
    reason: str | None = Field(
        None, max_length=LONGEST_TEXT, pattern=r"\S", description="who undid it, and how; only with `settle`"
    )


class Undone(Requested):
    """Whether the broker was asked: false where nothing is left to undo."""

    said: str = Field(description="what it was asked for, or why not")


class EraseRequest(OneExecution):
    """Whether to erase, or only to say what would be erased."""

    preview: StrictBool = Field(default=True, description="say what would be erased; false: erase it")


class ErasedView(BaseModel):
    """A preview: `executions` and why they cannot be erased. Or that they were erased."""

    execution_id: Id
    executions: int = Field(description="it, what it started, forks and retries, and theirs")
    refused: str | None = Field(None, description="of a preview: why it cannot be erased")


class PutBack(BaseModel):
    """How many events went back to the broker."""

    execution_id: Id
    put_back: int


class Which(Given):
    """Which executions; at least one filter, or `all`."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_FILTER, _ALL]})

    path: str | None = Field(None, max_length=LONGEST_TEXT, description="* stands for any characters")
    status: Status | None = None
    error: str | None = Field(None, max_length=LONGEST_TEXT)
    step: str | None = Field(None, max_length=LONGEST_TEXT, description="where it failed")
    since: Time | None = None
    until: Time | None = None
    version: Version | None = Field(None, description="of this version of their playbook")
    tag: Tags = None
    key: WithKey = None
    all: StrictBool = False


class VerifyRequest(Given):
    """Which executions to check: one with its children, or those of a filter. `deep`: replay their turns, too."""

    execution_id: GivenId | None = None
    which: Which
    deep: bool = Field(default=False, description="also replay the recorded turns; slow")
    examples: int = Field(3, ge=0, le=1_000, description="how many examples of each fault to print")


class Treatment(Given):
    """What to do with many executions."""

    action: BulkOrErase
    reason: Text | None = Field(None, description="of cancel and pause")
    from_step: Text | None = Field(None, alias="from", description="of fork")
    version: OnVersion = None
    or_from_start: OrFromStart = False


class OfMany(Given):
    """Which executions, and whether to act on them."""

    which: Which
    preview: StrictBool = Field(default=True, description="count them and do nothing; false: do it")
    limit: int = Field(100, ge=1, le=MOST_TREATED, description="executions of one request; `next` goes on")
    after: IdOfBody | None = Field(None, description="`next` of the request before")


class BulkRequest(Treatment, OfMany):
    """What to do with which executions."""

    action: Bulk


class EraseManyRequest(OfMany):
    """Which executions to erase."""


class ChosenRequest(Treatment):
    """What to do with the executions of `ids`, or with all that match; a text chooses among the newest."""

    ids: list[GivenId] | None = Field(None, min_length=1, max_length=MOST_ROWS)
    which: ListExecutions | None = None
    after: GivenId = 0
    preview: StrictBool = False


class GroupView(BaseModel):
    """Executions of one version, step and reason, without the numbers and ids in which their reasons differ."""

    path: str | None
    version: int | None
    step: str | None
    reason: str
    executions: int
    example: Id
    latest: int | None = Field(None, description="the latest version of the path, where it is newer")
    outlook: str | None = Field(None, description="what the action will do; null: not previewed")
    goes_on: bool | None = Field(None, description="false: the action cannot be done")


class Done(BaseModel):
    """An execution that was treated."""

    execution_id: Id
    requested: bool | None = None
    version: int | None = Field(None, description="another version on which it goes on")
    anew: str | None = Field(None, description="why it starts from the start on that version")
    recovered_as: Id | None = None
    put_back: int | None = None
    executions: int | None = Field(None, description="of erase: how many were erased with it; 0: it was erased before")


class Failed(BaseModel):
    """An execution on which the action failed."""

    execution_id: Id
    message: str


class Treated(BaseModel):
    """A preview: `found`, at most 10,000, and `groups`. Or what was done, oldest first, and where to go on."""

    found: int
    left_out: int = Field(0, description="of a preview: they match, but a retry or a fork continues them")
    groups: list[GroupView] = Field(default_factory=list)
    done: list[Done] = Field(default_factory=list)
    failed: list[Failed] = Field(default_factory=list)
    next: Id | None = Field(None, description="`after` of the next request; null: there are no more")
    unanswered: list[str] = UNANSWERED
