"""Schedules: list, put, pause, resume, delete, next moments, backfill."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, StrictBool

from noetl_broker.client import mapping_text
from noetl_broker.console.access import Operator, Viewer
from noetl_broker.console.api.execution_actions import LONGEST_TEXT, Given
from noetl_broker.console.names import register_names
from noetl_broker.console.paging import Listed, Paging
from noetl_broker.console.services import LongWork, Pooled
from noetl_broker.console.values import Id, Moment, Payload, Time
from noetl_broker.operations.schedules import (
    next_moments,
    operator_faults,
    plan_backfill,
    schedule_as_document,
    start_missing,
)
from noetl_broker.playbook.cron import read_cron
from noetl_broker.playbook.plain_values import LARGEST_VERSION
from noetl_broker.store.admin import list_pages
from noetl_broker.store.admin import schedules as store
from noetl_broker.store.admin.schedules import ScheduleSpec
from noetl_broker.store.connect.connection import Connection

router = APIRouter(prefix="/schedules", tags=["schedules"])

register_names("schedule", "next", "pause", "resume", "backfill")
MOST_SECONDS = 3660 * 86_400.0
MOST_JITTER_SECONDS = 366 * 86_400.0
MOST_STARTED = 500  # executions of one backfill request
RATE = 10_000.0  # a second: the number of executions bounds a request
Name = Annotated[
    str, Path(min_length=1, max_length=900, description="it does not end with /next, /pause, /resume or /backfill")
]
Seconds = Annotated[float, Field(ge=0, le=MOST_SECONDS)]


class ScheduleView(BaseModel):
    """A playbook that starts at moments; spans are in seconds."""

    name: str
    path: str
    version: int | None = Field(description="null: the latest at each moment")
    payload: Payload
    cron: str | None
    every: float | None
    timezone: str
    jitter: float
    catch_up: float
    overlap: str
    declared_in: str | None = Field(description="the playbook that declares it")
    paused: bool
    paused_at: Moment | None
    resumed_at: Moment | None
    next_at: Moment | None
    last_at: Moment | None
    last_execution_id: Id | None
    started: int
    skipped: int
    error: Payload
    error_at: Moment | None
    path_paused_at: Moment | None = Field(description="since then the starts of its playbook wait")
    path_pause_reason: Payload


class ScheduleRequest(Given):
    """What a schedule is; exactly one of `cron` and `every`."""

    path: str = Field(min_length=1, max_length=LONGEST_TEXT)
    version: int | None = Field(None, ge=1, le=LARGEST_VERSION)
    payload: dict[str, Any] = Field(default_factory=dict)
    cron: str | None = Field(None, min_length=1, max_length=200, description="five fields, or six with seconds first")
    every: float | None = Field(None, ge=1, le=MOST_SECONDS, description="seconds between starts, in place of `cron`")
    timezone: str = Field("UTC", min_length=1, max_length=64, description="of `cron`: an IANA name")
    jitter: float = Field(0.0, ge=0, le=MOST_JITTER_SECONDS)
    catch_up: Seconds = 3600.0
    overlap: Literal["skip", "queue", "cancel", "allow"] = "skip"


class ScheduleChange(BaseModel):
    """Whether something changed, and the next moment."""

    name: str
    changed: bool
    next: list[str] = Field(default_factory=list)


class Moments(BaseModel):
    """The next moments of a schedule, on the clock of its zone."""

    name: str
    next: list[str]


class BackfillRequest(Given):
    """Which past moments to start."""

    since: Time
    until: Time | None = Field(None, description="default: now")
    preview: StrictBool = Field(default=True, description="count them and do nothing; false: do it")
    limit: int = Field(100, ge=1, le=MOST_STARTED, description="executions of one request")


class Backfilled(BaseModel):
    """Of `moments`, those that lack an execution (`found`), and what was started, oldest first."""

    moments: int
    found: int
    at: list[str] = Field(default_factory=list, description="of a preview: the first moments that would start")
    done: list[dict[str, Any]] = Field(default_factory=list)
    failed: list[dict[str, Any]] = Field(default_factory=list)


@router.get("", response_model=Listed[ScheduleView])
async def list_schedules(
    _caller: Viewer,
    connections: Pooled,
    page: Paging,
    path: Annotated[str | None, Query(max_length=LONGEST_TEXT, description="* stands for any characters")] = None,
) -> Any:
    """List schedules by name, with what went wrong last."""
    async with connections.borrow() as connection:
        found = await list_pages.page_schedules(connection, path=path, **page.arguments(str))
    return page.document(found._replace(items=[schedule_as_document(row) for row in found.items]))


@router.get("/{name:path}/next", response_model=Moments)
async def list_moments(
    _caller: Viewer, connections: Pooled, name: Name, count: Annotated[int, Query(ge=1, le=1000)] = 5
) -> Any:
    """List the next moments of a schedule."""
    async with connections.borrow() as connection:
        return {"name": name, "next": next_moments(await store.find_schedule(connection, name), count)}


@router.get("/{name:schedule}", response_model=ScheduleView)
async def show_schedule(_caller: Viewer, connections: Pooled, name: Name) -> Any:
    """Show one schedule."""
    async with connections.borrow() as connection:
        return schedule_as_document(await store.find_schedule(connection, name))


@router.put("/{name:schedule}", response_model=ScheduleChange)
async def put_schedule(_caller: Operator, connections: Pooled, name: Name, given: ScheduleRequest) -> Any:
    """Make a schedule, or change it. Another timing counts from now; a paused schedule stays paused."""
    cron = given.cron
    if cron is not None:
        with operator_faults():
            cron = read_cron(cron, given.timezone).text
    spec = ScheduleSpec(
        name=name,
        path=given.path,
        cron=cron,
        every=None if given.every is None else timedelta(seconds=given.every),
        payload=mapping_text(given.payload),
        timezone=given.timezone,
        version=given.version,
        jitter=timedelta(seconds=given.jitter),
        catch_up=timedelta(seconds=given.catch_up),
        overlap=given.overlap,
    )
    async with connections.borrow() as connection:
        changed = await store.put_schedule(connection, spec)
        following = next_moments(await store.find_schedule(connection, name), 1)
    return {"name": name, "changed": changed, "next": following}


@router.post("/{name:path}/pause", response_model=ScheduleChange)
async def pause_schedule(_caller: Operator, connections: Pooled, name: Name) -> Any:
    """Pause a schedule: its moments pass without a start."""
    async with connections.borrow() as connection:
        return {"name": name, "changed": await store.pause_schedule(connection, name)}


@router.post("/{name:path}/resume", response_model=ScheduleChange)
async def resume_schedule(_caller: Operator, connections: Pooled, name: Name) -> Any:
    """End the pause of a schedule; a backfill starts the moments that passed."""
    async with connections.borrow() as connection:
        return {"name": name, "changed": await store.resume_schedule(connection, name)}


@router.post("/{name:path}/backfill", response_model=Backfilled)
async def backfill_schedule(_caller: Operator, work: LongWork, name: Name, given: BackfillRequest) -> Any:
    """Start missing executions of past moments, oldest first, or count them by a preview."""

    async def start(connection: Connection) -> dict[str, Any]:
        plan = await plan_backfill(connection, name, given.since, given.until)
        counts = {"moments": len(plan.moments), "found": len(plan.missing)}
        first = plan._replace(missing=plan.missing[: given.limit])
        if given.preview:
            return {**counts, "at": [store.moment_text(plan.timing, at) for at in first.missing]}
        acted = await start_missing(connection, first, rate=RATE)
        done = [{**entry, "execution_id": str(entry["execution_id"])} for entry in acted.done]
        return {**counts, "done": done, "failed": acted.failed}

    return await work.run(start)


@router.delete("/{name:schedule}", response_model=ScheduleChange)
async def delete_schedule(_caller: Operator, connections: Pooled, name: Name) -> Any:
    """Delete a schedule. Executions that it started stay; one that a playbook declares is refused."""
    async with connections.borrow() as connection:
        await store.delete_schedule(connection, name)
    return {"name": name, "changed": True}
