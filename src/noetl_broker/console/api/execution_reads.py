"""What one execution holds, by pages, and what is derived from it: reasons, graph, snapshot, replay, invariants."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from noetl_broker.console.access import Operator, Role, Viewer
from noetl_broker.console.api.executions import UndoView
from noetl_broker.console.images import IMAGES, TIMELINE, Form, drawn, svg_answer
from noetl_broker.console.paging import Listed, Paging
from noetl_broker.console.services import LongWork, Pooled, Rules, ShortWork
from noetl_broker.console.values import (
    ExecutionId,
    Facts,
    Hidden,
    Id,
    Moment,
    Payload,
    Recorded,
    WorkerFault,
)
from noetl_broker.diagram.build import picture_of_execution
from noetl_broker.diagram.time_chart import TimeChart
from noetl_broker.operations.differences import find_differences
from noetl_broker.operations.explanations import explain_part
from noetl_broker.operations.pictures import without_values
from noetl_broker.operations.snapshots import state_after
from noetl_broker.store.admin import list_pages
from noetl_broker.store.admin.execution_path import load_execution_path
from noetl_broker.store.admin.executions import find_execution
from noetl_broker.store.admin.verify import VerifyScope, verify
from noetl_broker.store.admin.visit_spans import load_spans
from noetl_broker.store.connect.connection import Connection
from noetl_broker.text import ids_as_text

router = APIRouter(prefix="/executions/{execution_id}", tags=["executions"])

ItemStatus = Literal["WAITING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
MOST_EXAMPLES = 10  # of an invariant that does not hold
Step = Annotated[
    str | None, Query(max_length=1_000, description="a step, load#2 for its second visit, load[3] for an item")
]


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
    taken_by: Id | None = Field(description="the execution that undoes it instead")


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


class Replayed(BaseModel):
    """Every recorded turn of an execution, decided again: what differs from what was written."""

    execution_id: Id
    turns: int
    running: bool
    count: int = Field(description="of the differences; the first 1,000 are listed")
    differences: list[Facts]


@router.get("/events", response_model=Listed[EventView])
async def list_events(_caller: Viewer, connections: Pooled, page: Paging, execution_id: ExecutionId) -> Any:
    """List the events of an execution by id, which is nearly the order of its turns."""
    async with connections.borrow() as connection:
        await find_execution(connection, execution_id)
        return page.document(await list_pages.page_events(connection, execution_id, **page.arguments(int)))


@router.get("/jobs", response_model=Listed[JobView])
async def list_jobs(_caller: Viewer, connections: Pooled, page: Paging, execution_id: ExecutionId) -> Any:
    """List the jobs of an execution, also finished jobs."""
    async with connections.borrow() as connection:
        await find_execution(connection, execution_id)
        return page.document(await list_pages.page_jobs(connection, execution_id, **page.arguments(str)))


@router.get("/items", response_model=Listed[ItemView])
async def list_items(
    _caller: Viewer,
    connections: Pooled,
    page: Paging,
    execution_id: ExecutionId,
    status: Annotated[ItemStatus | None, Query()] = None,
) -> Any:
    """List the iterator items that the broker runs, with their child executions."""
    async with connections.borrow() as connection:
        await find_execution(connection, execution_id)
        return page.document(
            await list_pages.page_items(connection, execution_id, status=status, **page.arguments(str, int))
        )


@router.get("/undo", response_model=Listed[ListedUndo])
async def list_undos(_caller: Viewer, connections: Pooled, page: Paging, execution_id: ExecutionId) -> Any:
    """List what an execution has to undo: the last success first, as it is undone."""
    async with connections.borrow() as connection:
        await find_execution(connection, execution_id)
        return page.document(await list_pages.page_undos(connection, execution_id, **page.arguments(int, int, str)))


@router.get("/explain", response_model=ReasonView, response_model_exclude_defaults=True)
async def explain(caller: Viewer, work: ShortWork, rules: Rules, execution_id: ExecutionId, step: Step = None) -> Any:
    """Say why a step ran or not, or what the execution waits for and how it ended. A viewer gets no values."""
    shows_values = caller.role is Role.OPERATOR

    async def explained(connection: Connection) -> Any:
        return (await explain_part(connection, execution_id, step, rules, shows_values=shows_values)).as_json()

    return await work.run(explained)


@router.get("/graph", response_class=Response, responses=IMAGES)
async def draw_execution(
    caller: Viewer,
    work: ShortWork,
    rules: Rules,
    execution_id: ExecutionId,
    form: Form = "svg",
) -> Response:
    """Draw an execution with the path that it took. A viewer gets no conditions and no messages of errors."""

    async def draw(connection: Connection) -> Response:
        picture = picture_of_execution(*await load_execution_path(connection, execution_id, rules))
        return drawn(picture if caller.role is Role.OPERATOR else without_values(picture), form)

    return await work.run(draw)


@router.get("/timeline", response_class=Response, responses=TIMELINE)
async def draw_timeline(_caller: Viewer, work: ShortWork, execution_id: ExecutionId) -> Response:
    """Draw the visits of an execution along the time: when each waited, was tried and ended, and its children."""

    async def draw(connection: Connection) -> Response:
        row = await find_execution(connection, execution_id)
        return svg_answer(TimeChart(await load_spans(connection, row)).svg())

    return await work.run(draw)


@router.get("/snapshot")
async def show_snapshot(
    _caller: Operator,
    work: LongWork,
    rules: Rules,
    execution_id: ExecutionId,
    turn: Annotated[int, Query(ge=1, le=999_999_999)],
) -> dict[str, Any]:
    """Show the state after a turn: open visits, waiting joins, results. The turns up to it are decided again."""

    async def snapshot(connection: Connection) -> dict[str, Any]:
        state = await state_after(connection, execution_id, f"turn:{turn}", rules)
        return dict(ids_as_text(state.as_document()))

    return await work.run(snapshot)


@router.get("/replay", response_model=Replayed)
async def replay_execution(_caller: Operator, work: LongWork, rules: Rules, execution_id: ExecutionId) -> Any:
    """Decide each recorded turn again and report what differs from what was written."""
    found = await work.run(lambda connection: find_differences(connection, execution_id, rules))
    return {
        "execution_id": execution_id,
        "turns": found.turns,
        "running": found.is_running,
        "count": found.count,
        "differences": found.as_documents(),
    }


@router.get("/verify", response_model=Verified)
async def verify_execution(_caller: Operator, work: LongWork, execution_id: ExecutionId) -> Any:
    """Check the invariants of an execution and its children in one snapshot."""
    report = await work.run(lambda connection: verify(connection, VerifyScope(execution_id), examples=MOST_EXAMPLES))
    invariants = [
        {
            "invariant": verdict.check.invariant,
            "sentence": verdict.check.sentence,
            "broken": verdict.broken,
            "examples": [fault._asdict() for fault in verdict.examples],
        }
        for verdict in report.verdicts
    ]
    return {"executions": report.executions, "broken": report.broken, "invariants": invariants}
