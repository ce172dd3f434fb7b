"""What is asked about executions, and what the answers have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from noetl_broker.service.models.base import (
    UNANSWERED,
    Given,
    GivenTags,
    OneExecution,
    Paged,
    PageOfOne,
    SomeText,
    Status,
    Tags,
    Text,
    Version,
    WithKey,
    is_given,
)
from noetl_broker.service.models.values import (
    ErrorType,
    Facts,
    Fault,
    Hidden,
    Id,
    Moment,
    Payload,
    Recorded,
    Time,
    WorkerFault,
)
from noetl_broker.template.durations import LONGEST_SECONDS

UndoStatus = Literal["open", "running", "done", "failed", "unknown", "superseded", "settled"]
UndoState = Literal["undoing", "undone", "left"]
_LATE: Any = Field(description="since when it, or a step of it, is or was late; null: never")
_UNDO_STATE: Any = Field(description="how its undo stands after its end; null: it has none")
ItemStatus = Literal["WAITING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
Form = Literal["svg", "mermaid"]


BucketKey = Annotated[
    SomeText | None,
    Field(description="what belongs together, such as a customer: with buckets, it chooses the bucket"),
]


class ListExecutions(Paged):
    """Which executions a list has."""

    path: Text | None = Field(None, description="of this playbook; * stands for any characters")
    status: Status | None = Field(None, description="in this status")
    error: Text | None = Field(None, description="a part of type and message of the error, such as ValueError: bad")
    step: Text | None = Field(None, description="that failed in this step")
    since: Time | None = Field(None, description="that started or took a turn since: a moment or a span")
    until: Time | None = Field(None, description="that started until then: a moment or a span")
    version: Version | None = Field(None, description="of this version of its playbook")
    tag: Tags = None
    key: WithKey = None
    text: Text | None = Field(None, description="a part of id, path or step; for an operator, of more")


class StepRequest(OneExecution):
    """An execution, or a part of it."""

    step: Text | None = Field(None, description="a step, load#2 for its second visit, load[3] for an item")


class ViewRequest(StepRequest):
    """What a page about an execution shows; `why`: an explanation also of a long history."""

    turn: int | None = Field(None, ge=1, le=999_999_999)
    why: bool = False


class ValueRequest(StepRequest):
    """A value of an execution, or of a visit of a step."""

    part: Literal["workload", "result", "error", "inputs"]


class ForkPreview(OneExecution):
    """The step whose result a fork replaces."""

    of: SomeText


class GraphRequest(OneExecution):
    """The graph of an execution."""

    format: Form = "svg"


class SnapshotRequest(OneExecution):
    """A turn of an execution."""

    turn: int = Field(ge=1, le=999_999_999)


class ListItems(PageOfOne):
    """Which items of iterators a list has."""

    status: ItemStatus | None = None


class ListLog(PageOfOne):
    """Which part of an execution's log a list has."""

    step: Text | None = Field(None, description="a step, load#2 for its second visit, load[7] for an item")


StartAt = Annotated[
    Annotated[str, Field(max_length=64), WithJsonSchema({"type": "string", "format": "date-time"})] | None,
    Field(examples=["2026-03-01T09:00:00Z"], description="the moment at which it starts"),
]
_ONE_MOMENT = ConfigDict(json_schema_extra={"not": {"allOf": [is_given("start_at"), is_given("start_after")]}})


class StartRequest(Given):
    """What to start."""

    model_config = _ONE_MOMENT

    path: str = Field(min_length=1, max_length=1_000, examples=["examples/weather"])
    version: Version | None = Field(None, description="null: the latest")
    payload: dict[str, Any] = Field(default_factory=dict)
    idempotency_key: SomeText | None = Field(None, description="one key starts one execution, however often it is sent")
    bucket_key: BucketKey = None
    tags: GivenTags = None
    start_at: StartAt = None
    start_after: float | None = Field(None, ge=0, le=LONGEST_SECONDS, description="seconds until it starts")
    priority: int | None = Field(None, ge=-(2**31), lt=2**31, description="of its jobs, if the playbook says none")


class StartManyRequest(Given):
    """What to start many times, in one transaction: all start, or none."""

    path: str
    version: Version | None = None
    payloads: list[dict[str, Any]]
    idempotency_keys: list[str | None] | None = None
    bucket_key: BucketKey = None
    tags: GivenTags = None
    start_at: StartAt = None
    start_after: float | None = Field(None, ge=0, le=LONGEST_SECONDS, description="seconds until it starts")
    priority: int | None = Field(None, ge=-(2**31), lt=2**31, description="of its jobs, if the playbook says none")


class OutcomeView(BaseModel):
    """What an execution came to; a live one has neither result nor error."""

    execution_id: Id
    path: str | None
    version: int | None
    status: str
    result: Payload
    error: Fault


class ExecutionView(BaseModel):
    """One execution of a list."""

    execution_id: Id
    path: str | None
    version: int | None
    status: str
    started_at: Moment
    ended_at: Moment | None
    parent_execution_id: Id | None
    forked_from: Id | None = Field(description="the execution that it recovers")
    error: Fault
    recovered_as: Id | None = Field(description="the fork or retry that recovered it")
    undo_status: UndoState | None = _UNDO_STATE
    tags: dict[str, str] | None = Field(None, description="what lists find it by")
    key: Hidden = Field(None, description="the idempotency key of its start")
    late_at: Moment | None = _LATE


class StepView(BaseModel):
    """Where one step stands."""

    step: str
    type: str | None
    status: str | None
    visits: int | None
    started_at: Moment | None
    ended_at: Moment | None


class Wait(BaseModel):
    """An open wait: for a time, a signal or a person."""

    node_id: str
    step: str
    kind: str
    names: Hidden
    key: Hidden
    title: Payload
    since: Moment
    due_at: Moment | None


class OpenJobView(BaseModel):
    """A job that is open or that failed."""

    queue_id: Id
    node_id: str | None
    step: str | None
    type: str | None
    status: str
    priority: int | None
    attempts: int | None
    max_attempts: int | None
    lost_leases: int | None
    available_at: Moment | None
    lease_until: Moment | None
    worker_id: Hidden
    stop: bool | None
    pool: str | None


class ItemErrorsView(BaseModel):
    """Failed items whose errors have the same type; `first` is the least index, null while one worker runs all."""

    type: ErrorType
    count: int
    first: int | None


class IteratorProgress(BaseModel):
    """How far one visit of an iterator is, and why items failed."""

    step: str
    visit: int
    total: int
    started: int
    ended: int
    failed: int
    cancelled: int
    retrying: int = Field(description="open items that failed and wait for another attempt")
    held: int = Field(description="open items whose job a throttle holds")
    is_open: bool
    errors: list[ItemErrorsView]
    other_errors: int
    other_types: int
    last_ended_at: Moment | None
    pace: float | None = Field(description="items a second, over the last ones")
    seconds_left: float | None


class DeadLetterOfExecution(BaseModel):
    """An event on which deciding failed."""

    event_id: Id
    event_type: str | None
    node_name: str | None
    reason: Payload
    created_at: Moment


class HeldSlot(BaseModel):
    """A slot that an execution holds or waits for."""

    path: str = Field(description="of which playbook; empty: of a schedule")
    key: Hidden
    name: Hidden = Field(description="what it is for, such as `customer 7`")
    number: int = Field(description="its number in the line")
    since: Moment = Field(description="when it asked")
    held_at: Moment | None = Field(description="since when it holds the slot; null: it waits")
    max_held: int
    before: int | None = Field(description="how many wait before it; null: it holds the slot")
    waiting: int
    holders: list[Id] = Field(description="the first 10")


class DrainingVisit(BaseModel):
    """A visit that is over, but whose success would be undone."""

    step: str
    visit: int


class UndoView(BaseModel):
    """A visit or an item that was undone, or is to be undone."""

    node_id: str
    step: str
    visit: int
    index: int | None = Field(description="the index of the item; null: the visit itself")
    status: UndoStatus
    child_execution_id: Id | None = Field(description="a child that undoes what it did")
    error: WorkerFault = None
    ended_at: Moment | None


class UndoingView(BaseModel):
    """What an execution has to undo."""

    counts: dict[UndoStatus, int]
    left: list[UndoView] = Field(description="what runs, failed, is unknown or open; the first 20")
    status: UndoState | None = _UNDO_STATE


class ExecutionDetails(ExecutionView):
    """One execution: its row, steps, open waits, open or failed jobs, progress of iterators, dead letters."""

    forked_from: Id | None
    recovered_as: Id | None = Field(description="the latest fork or retry of it")
    result: Payload
    archived: bool
    erased_at: Moment | None = Field(description="when its values were erased; null: they are there")
    unread: int = Field(description="events that the broker has not decided on")
    read_at: Moment = Field(description="the database's clock")
    steps: list[StepView]
    waits: list[Wait]
    jobs: list[OpenJobView] = Field(description="of iterator items, the first")
    unlisted_jobs: int = Field(description="jobs of items that are not listed")
    iterators: list[IteratorProgress]
    slots: list[HeldSlot] = Field(description="slots that it holds or waits for")
    undo: UndoingView | None = Field(description="null: it never had anything to undo")
    draining: list[DrainingVisit] = Field(description="visits that are over; if one still succeeds, that is undone")
    dead_letters: list[DeadLetterOfExecution]


class Started(BaseModel):
    """The execution that was started."""

    execution_id: Id


class VisitValues(BaseModel):
    """The values of a visit."""

    inputs: Payload
    result: Payload
    error: WorkerFault


class EventView(BaseModel):
    """One event, with the columns of noetl.event."""

    execution_id: Id
    event_id: Id
    catalog_id: Id | None
    parent_event_id: Id | None
    parent_execution_id: Id | None
    created_at: Moment
    event_type: str
    node_id: str | None
    node_name: str | None
    node_type: str | None
    status: str | None
    duration: float | None
    context: Recorded
    result: Payload
    meta: Recorded
    error: WorkerFault
    worker_id: Hidden


class ListedUndo(UndoView):
    """A visit or an item that was undone, or is to be undone."""

    turn: int = Field(description="that read its success")


class JobView(BaseModel):
    """One job."""

    queue_id: Id
    node_id: str
    step: str
    type: str
    status: str
    priority: int
    attempts: int
    max_attempts: int
    lost_leases: int
    available_at: Moment | None
    lease_until: Moment | None
    worker_id: Hidden
    stop: bool = Field(description="the worker of this lease shall stop")
    held_for: list[str] | None = Field(description="why it is held: `pause`, `limit`, or both")
    limit_name: str | None = Field(description="the throttle that counts it")
    limit_key: Hidden
    pool: str = Field(description="the pool of workers that may lease it")


class ItemView(BaseModel):
    """One item of an iterator that the broker runs."""

    node_id: str = Field(description="the visit of the iterator")
    index: int = Field(description="from 0")
    status: str
    child_execution_id: Id | None
    error: WorkerFault


class ReasonView(BaseModel):
    """One sentence, facts for programs, and the reasons behind it."""

    kind: str
    says: str
    facts: Facts = Field(default_factory=dict)
    because: list[ReasonView] = Field(default_factory=list)


class Invariant(BaseModel):
    """One thing that must hold: how often it does not, and where."""

    invariant: str
    sentence: str
    broken: int
    examples: list[Facts]


class Verified(BaseModel):
    """The invariants of an execution and its children."""

    executions: int
    broken: int
    invariants: list[Invariant]
    unanswered: list[str] = UNANSWERED


class Replayed(BaseModel):
    """Every recorded turn of an execution, decided again: what differs from what was written."""

    execution_id: Id
    turns: int
    running: bool
    count: int = Field(description="of the differences; the first 1,000 are listed")
    differences: list[Facts]


class LogEntry(BaseModel):
    """Text that one attempt printed on one stream, or logged with one level."""

    execution_id: Id
    node_id: str
    step: str
    visit: int
    index: int | None = Field(description="of an iterator's item, from 0")
    attempt: int
    ordinal: int = Field(description="the place in the log of the attempt, from 1")
    level: str = Field(description="debug, info, warning, error")
    created_at: Moment
    message: str = Field(description="with its ends of lines; a line may go on in the next entry")
    missing_bytes: int = Field(description="printed before this entry, and not kept")
