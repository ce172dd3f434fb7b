"""Executions: list, details, start."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, Field

from noetl_broker.client import mapping_text
from noetl_broker.console.access import Operator, Role, Viewer, refuse_hidden_filter
from noetl_broker.console.api.execution_actions import Given
from noetl_broker.console.paging import Listed, Paging
from noetl_broker.console.services import Pooled, Rules
from noetl_broker.console.values import ErrorType, ExecutionId, Fault, Hidden, Id, Moment, Payload, Time, WorkerFault
from noetl_broker.operations.payload_check import payload_check
from noetl_broker.operations.spans import parse_since, parse_until
from noetl_broker.playbook.plain_values import LARGEST_VERSION
from noetl_broker.store.admin import executions, list_pages

router = APIRouter(prefix="/executions", tags=["executions"])

Status = Literal["QUEUED", "RUNNING", "PAUSED", "COMPENSATING", "COMPLETED", "FAILED", "CANCELLED"]
UndoStatus = Literal["open", "running", "done", "failed", "unknown", "superseded", "taken"]
LONGEST_TEXT = 1_000  # characters of a filter or a key


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


class UndoExecution(BaseModel):
    """An execution that undoes what another one left."""

    execution_id: Id
    status: str


class UndoingView(BaseModel):
    """What an execution has to undo."""

    counts: dict[UndoStatus, int]
    left: list[UndoView] = Field(description="what runs, failed, is unknown or open; the first 20")
    executions: list[UndoExecution] = Field(description="those that undo what it left")


class ExecutionDetails(BaseModel):
    """One execution: its row, steps, open waits, open or failed jobs, progress of iterators, dead letters."""

    execution_id: Id
    path: str | None
    version: int | None
    status: str
    started_at: Moment
    ended_at: Moment | None
    parent_execution_id: Id | None
    forked_from: Id | None
    recovered_as: Id | None = Field(description="the latest fork or retry of it")
    result: Payload
    error: Fault
    archived: bool
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


class Start(Given):
    """What to start."""

    path: str = Field(min_length=1, max_length=LONGEST_TEXT, examples=["examples/weather"])
    version: int | None = Field(None, ge=1, le=LARGEST_VERSION, description="null: the latest")
    payload: dict[str, Any] = Field(default_factory=dict)


class Started(BaseModel):
    """The execution that was started."""

    execution_id: Id


def _text(description: str) -> Any:
    return Query(max_length=LONGEST_TEXT, description=description)


def _moment(description: str) -> Any:
    return Query(description=f"{description}: a moment or a span")


@router.get("", response_model=Listed[ExecutionView])
async def list_executions(
    caller: Viewer,
    connections: Pooled,
    page: Paging,
    *,
    path: Annotated[str | None, _text("of this playbook; * stands for any characters")] = None,
    status: Annotated[Status | None, Query(description="in this status")] = None,
    error: Annotated[str | None, _text("a part of type and message of the error, such as ValueError: bad")] = None,
    step: Annotated[str | None, _text("that failed in this step")] = None,
    since: Annotated[Time | None, _moment("that started or took a turn since")] = None,
    until: Annotated[Time | None, _moment("that started until then")] = None,
    version: Annotated[
        int | None, Query(ge=1, le=LARGEST_VERSION, description="of this version of its playbook")
    ] = None,
    text: Annotated[str | None, _text("a part of id, path or step; for an operator, of more")] = None,
) -> Any:
    """List executions, newest first. `path` and `error` may hold `*`; `step` is where it failed.

    `since` and `until` are moments or time spans before now. A page may hold few executions, or none, while `next`
    leads to more: it reads 25,000 at most. `error` and `text` search the newest 10,000. For an operator, `text` looks
    into idempotency keys, messages and short workloads, too; `error` is for operators alone.
    """
    refuse_hidden_filter(caller, "errors", error)
    begin = None if since is None else parse_since(since)
    end = None if until is None else parse_until(until)
    which = executions.Filter(path=path, status=status, error=error, step=step, since=begin, until=end, version=version)
    async with connections.borrow() as connection:
        return page.document(
            await list_pages.page_executions(
                connection, which, text=text, with_values=caller.role is Role.OPERATOR, **page.arguments(int)
            )
        )


@router.get("/{execution_id}", response_model=ExecutionDetails)
async def show_execution(_caller: Viewer, connections: Pooled, execution_id: ExecutionId) -> Any:
    """Show the state of an execution, step by step."""
    async with connections.borrow() as connection:
        return await executions.load_execution_details(connection, execution_id)


@router.post("", status_code=HTTPStatus.CREATED)
async def start_execution(
    _caller: Operator,
    connections: Pooled,
    rules: Rules,
    start: Start,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1, max_length=LONGEST_TEXT, description="one key starts one execution, however often it is sent"
        ),
    ] = None,
) -> Started:
    """Start an execution of a playbook. A payload that breaks the playbook's `workload_schema` starts nothing."""
    payload = mapping_text(start.payload)
    async with connections.borrow() as connection:
        check = await payload_check(connection, start.path, start.version, rules)
        check(payload, "")
        started = await executions.start_execution(
            connection, start.path, payload, version=start.version, idempotency_key=idempotency_key
        )
    return Started(execution_id=started)
