"""Schedules in the database: put, list, pause, resume, delete; and moves those that are due.

A broker locks due rows, decides with `plan_move`, and starts and moves in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg

from noetl_broker.broker.holds.schedules import NO_MOMENT, Move, Schedule, plan_move
from noetl_broker.errors import NotFoundFault
from noetl_broker.playbook.cron import Timing, TimingError, read_cron, read_every
from noetl_broker.store.connect.connection import Connection, call
from noetl_broker.store.json_codec import dump_json
from noetl_broker.store.queries import sql

NEVER = datetime.max.replace(tzinfo=UTC)  # the driver sends it as infinity
Row = Mapping[str, Any] | asyncpg.Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """The fields of a schedule; exactly one of `cron` and `every`. `payload` is JSON text."""

    name: str
    path: str
    cron: str | None = None
    every: timedelta | None = None
    payload: str = "{}"
    timezone: str = "UTC"
    version: int | None = None
    jitter: timedelta = timedelta(0)
    catch_up: timedelta = timedelta(hours=1)
    overlap: str = "skip"
    declared_in: str | None = None
    tags: Mapping[str, object] | None = None
    priority: int | None = None


class Moved(NamedTuple):
    """The outcome for a schedule: its move, and the execution that was started or existed already."""

    name: str
    move: Move | None  # None: its timing cannot be read
    late_seconds: float  # from the due time to the poll
    execution_id: int | None
    is_new: bool
    fault: str | None


async def put_schedule(connection: Connection, spec: ScheduleSpec, by: str | None = None) -> bool:
    """Make a schedule or change it; returns whether something changed."""
    given = {"tags": spec.tags or None, "priority": spec.priority}
    options = {name: option for name, option in given.items() if option is not None}
    changed: bool = await connection.fetchval(
        sql("put_schedule"), spec.name, spec.path, spec.cron, spec.every, spec.payload, spec.timezone, spec.version,
        spec.jitter, spec.catch_up, spec.overlap, spec.declared_in, dump_json(options) if options else None, by,
    )  # fmt: skip
    return changed


async def declare_schedules(
    connection: Connection, path: str, specs: Sequence[ScheduleSpec], *, paused: bool = False, by: str | None = None
) -> None:
    """Bring the schedules that a playbook declares in line with its latest version.

    `paused`: what is new or changed begins paused.
    """
    for spec in specs:
        if await put_schedule(connection, spec, by) and paused:
            await call(connection, "pause_schedule", spec.name, by)
    await call(connection, "drop_undeclared_schedules", path, [spec.name for spec in specs])


async def list_schedules(connection: Connection) -> list[dict[str, Any]]:
    """All schedules by name."""
    return [dict(row) for row in await connection.fetch(sql("list_schedules"))]


async def find_schedule(connection: Connection, name: str) -> dict[str, Any]:
    """The row of a schedule, with `now`, the database's clock. Raises NotFoundFault."""
    row = await connection.fetchrow(sql("find_schedule"), name)
    if row is None:
        raise NotFoundFault(f"no schedule {name}; noetl-broker schedule list lists them")
    return dict(row)


async def has_schedule(connection: Connection, name: str) -> bool:
    """Whether there is a schedule of this name."""
    return bool(await connection.fetchval(sql("has_schedule"), name))


async def started_moments(connection: Connection, name: str, moments: Sequence[datetime]) -> dict[datetime, Row]:
    """The moments that have an execution already, each with its id, status and error."""
    return {row["moment"]: row for row in await connection.fetch(sql("started_moments"), name, [*moments])}


async def start_scheduled(
    connection: Connection, name: str, moment: datetime, timing: Timing, by: str | None = None
) -> tuple[int, bool]:
    """Start the execution of a moment; returns its id, and False if the moment had one."""
    row = await connection.fetchrow(sql("start_scheduled"), name, moment, moment_text(timing, moment), by)
    if row is None:
        raise NotFoundFault(f"no schedule {name}; noetl-broker schedule list lists them")
    return row["execution_id"], row["is_new"]


def timing_of(row: Row) -> Timing:
    """The timing of a row. Raises TimingError if it gives no moments."""
    if row["cron"] is None:
        return read_every(row["every"], row["since_at"])
    return read_cron(row["cron"], row["timezone"])


def moment_text(timing: Timing, moment: datetime) -> str:
    """A moment as the payload has it: RFC 3339 on the clock of its zone."""
    return timing.local(moment).isoformat().replace("+00:00", "Z")


async def move_due_schedules(
    connection: Connection, max_rows: int, *, watched_since: datetime | None = None
) -> list[Moved]:
    """Start what is due and move the rows, in one transaction. Rows that another broker holds are left to it.

    `watched_since`: what became due later is not missed.
    """
    async with connection.transaction():
        rows = await connection.fetch(sql("lock_due_schedules"), max_rows)
        if not rows:
            return []
        planned = [_plan(row, watched_since) for row in rows]
        columns = zip(*(_arguments(row, *plan) for row, plan in zip(rows, planned, strict=True)), strict=True)
        results = {row["name"]: row for row in await connection.fetch(sql("move_schedules"), *map(list, columns))}
    return [
        Moved(
            row["name"], move, _lateness(row), results[row["name"]]["execution_id"], results[row["name"]]["is_new"],
            results[row["name"]]["fault"],
        )
        for row, (move, _, _) in zip(rows, planned, strict=True)
    ]  # fmt: skip


def _plan(row: Row, watched_since: datetime | None) -> tuple[Move | None, str | None, str | None]:
    """The move of a row, the text of the moment that starts, and why there is no further moment."""
    try:
        timing = timing_of(row)
    except TimingError as error:
        return None, None, str(error)
    move = plan_move(
        Schedule(
            name=row["name"],
            timing=timing,
            since_at=row["since_at"],
            jitter=row["jitter"],
            catch_up=row["catch_up"],
            is_paused=row["paused"],
            paused_at=row["paused_at"],
            resumed_at=row["resumed_at"],
            next_at=row["next_at"],
            moved_at=row["moved_at"],
        ),
        row["now"],
        watched_since=watched_since,
    )
    text = None if move.start is None else moment_text(timing, move.start)
    return move, text, NO_MOMENT if move.next_at is None else None


def _arguments(row: Row, move: Move | None, text: str | None, fault: str | None) -> tuple[Any, ...]:
    """One entry of each array that `noetl.move_schedules` takes."""
    if move is None:
        return row["name"], None, None, 0, row["since_at"], None, NEVER, fault
    due = NEVER if move.due_at is None else move.due_at
    return row["name"], move.start, text, move.skipped, move.since_at, move.next_at, due, fault


def _lateness(row: Row) -> float:
    """Seconds from the due time to the poll; 0 for a row that was put or changed."""
    due: datetime = row["due_at"]
    return 0.0 if due.year == 1 else float((row["now"] - due).total_seconds())
