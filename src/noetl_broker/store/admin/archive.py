"""Archives old history: detaches the partitions of whole periods, moves rows without a period, deletes nothing.

A period is archived in several short transactions. The first detaches the events, checks again that no execution of the
period runs, and marks the period. An execution that starts later writes an event, so it cannot be in that partition.
After an interruption the next call continues.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from noetl_broker.errors import DatabaseFault, NotFoundFault, OperatorFault
from noetl_broker.store.connect.connection import Connection, call, schema_of
from noetl_broker.store.connect.schema_name import rendered
from noetl_broker.store.queries import sql

EVENTS = "event"  # detached first: every start and every move of an execution writes to it
BATCH = 200  # executions whose rows move in one transaction
BEFORE_ALL_IDS = -(2**63)
TRIES, PAUSE_SECONDS = 20, 0.5


class Blocker(NamedTuple):
    """An execution that prevents archiving its period, and why."""

    execution_id: int
    reason: str


class Period(NamedTuple):
    """A range of execution ids; its tables are `attached`, or `detached` in the archive.

    `held`: how many executions prevent archiving it; `blockers`: some of them. Young periods are not checked.
    """

    name: str
    begins_at: datetime
    ends_at: datetime
    first_id: int
    next_id: int
    archived_at: datetime | None
    dropped_at: datetime | None
    is_old: bool
    executions: int
    rows: int
    bytes: int
    attached: tuple[str, ...]
    detached: tuple[str, ...]
    blockers: tuple[Blocker, ...] = ()
    held: int = 0

    @property
    def is_due(self) -> bool:
        """Whether `archive_period` has something to do."""
        return bool(self.attached) and (self.archived_at is not None or (self.is_old and not self.held))


class MovedCounts(NamedTuple):
    """How many executions without a period were archived, and their rows."""

    executions: int
    rows: int


async def add_partition(connection: Connection, period_days: int) -> str | None:
    """Create one missing partition, for a period of `period_days`; returns its name, None if none is missing."""
    name: str | None = await call(connection, "add_partition", period_days)
    return name


async def lock_archiving(connection: Connection) -> None:
    """Wait for the lock that only one archiving or restoring process holds; this connection keeps it."""
    while not await connection.fetchval(sql("take_archive")):  # noqa: ASYNC110 - it is another process
        await asyncio.sleep(PAUSE_SECONDS)


async def list_periods(connection: Connection, older_than: float, *, examples: int = 3) -> list[Period]:
    """All periods, the oldest first, with what prevents archiving the old ones; `older_than` in seconds."""
    await connection.fetchval(sql("archive_patience"))
    tables = {row["period"]: {**row} for row in await connection.fetch(sql("list_partitions"))}
    periods = []
    for row in await connection.fetch(sql("list_periods"), older_than):
        found = tables.get(row["name"], {"rows": 0, "bytes": 0, "attached": (), "detached": ()})
        attached, detached = tuple(found["attached"]), tuple(found["detached"])
        period = Period(**row, rows=found["rows"], bytes=found["bytes"], attached=attached, detached=detached)
        if period.is_old and period.archived_at is None and period.dropped_at is None:
            blockers, held = await _find_blockers(connection, period, older_than, max(examples, 1))
            period = period._replace(blockers=blockers, held=held)
        periods.append(period)
    return periods


async def _find_blockers(
    connection: Connection, period: Period, older_than: float, examples: int
) -> tuple[tuple[Blocker, ...], int]:
    ids = period.first_id, period.next_id
    living = await connection.fetch(sql("living_in_period"), *ids, examples)
    young = await connection.fetch(sql("young_in_period"), *ids, older_than, examples)
    held = sum(rows[0]["holders"] for rows in (living, young) if rows)
    return tuple(Blocker(row["execution_id"], row["reason"]) for row in [*living, *young][:examples]), held


async def archive_period(connection: Connection, period: Period, older_than: float) -> tuple[Blocker, ...]:
    """Detach the tables of a period; if an execution prevents that, change nothing and return it."""
    tables = [*period.attached]
    if period.archived_at is None:
        blockers, _ = await _find_blockers(connection, period, older_than, 1)
        blockers = blockers or await retry_on_lock(_take_events, connection, period)
        if blockers:
            return blockers
        tables = [table for table in tables if table != EVENTS]
    for table in tables:
        await retry_on_lock(call, connection, "detach_partition", table, period.name)
    return ()


async def _take_events(connection: Connection, period: Period) -> tuple[Blocker, ...]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        if EVENTS in period.attached:
            await call(connection, "detach_partition", EVENTS, period.name)
        # An execution may have started since the last check.
        living = await connection.fetch(sql("living_in_period"), period.first_id, period.next_id, 1)
        if not living:
            await connection.execute(sql("mark_archived"), period.name)
    except BaseException:
        await transaction.rollback()
        raise
    await (transaction.rollback() if living else transaction.commit())
    return tuple(Blocker(row["execution_id"], row["reason"]) for row in living)


async def restore_period(connection: Connection, name: str, older_than: float = 0.0) -> Period:
    """Attach the tables of an archived period again; raises NotFoundFault or OperatorFault if there is none."""
    periods = {period.name: period for period in await list_periods(connection, older_than)}
    if name not in periods:
        raise NotFoundFault(f"there is no period {name}; noetl-broker archive --older-than 90d --dry-run shows them")
    period = periods[name]
    if period.dropped_at is not None:
        raise NotFoundFault(f"the period {name} was dropped on {period.dropped_at:%Y-%m-%d}")
    if period.archived_at is None:
        raise OperatorFault(f"the period {name} is not archived")
    if not period.detached and not period.attached:
        raise NotFoundFault(
            f"the tables of the period {name} are gone from the schema {_schema_of_archive(connection)}"
        )
    for table in reversed(period.detached):
        await retry_on_lock(call, connection, "bound_partition", table, name)
        await retry_on_lock(call, connection, "attach_partition", table, name)
    await connection.execute(sql("mark_restored"), name)
    return period


async def outside_periods(connection: Connection, older_than: float) -> AsyncIterator[list[int]]:
    """Ended executions with rows outside any attached period, in batches."""
    last = BEFORE_ALL_IDS
    while rows := await connection.fetch(sql("executions_without_period"), last, older_than, BATCH):
        last = rows[-1]["execution_id"]
        if over := [row["execution_id"] for row in rows if row["over"]]:
            yield over


async def archive_rows(connection: Connection, execution_ids: list[int]) -> MovedCounts:
    """Move the rows of these executions in one transaction; if one got a new event, move them one by one.

    An execution with a new event stays until the next call.
    """
    try:
        return MovedCounts(len(execution_ids), int(await call(connection, "archive_rows", execution_ids)))
    except asyncpg.SerializationError:
        if len(execution_ids) == 1:
            return MovedCounts(0, 0)
    alone = [await archive_rows(connection, [execution_id]) for execution_id in execution_ids]
    return MovedCounts(*map(sum, zip(*alone, strict=True)))


async def archived_fault(connection: Connection, execution_id: int) -> NotFoundFault | None:
    """The fault for a request for archived or dropped history; None if the execution is neither."""
    row = await connection.fetchrow(sql("archived_as"), execution_id)
    if row is None:
        return None
    if row["dropped_at"] is not None:
        return NotFoundFault(
            f"execution {execution_id} was dropped on {row['dropped_at']:%Y-%m-%d}: it ended longer ago than the"
            " setting keep"
        )
    period = row["period"]
    remedy = f"; noetl-broker archive --restore {period} brings it back" if period else ""
    place = f"the schema {_schema_of_archive(connection)}"
    return NotFoundFault(f"execution {execution_id} is archived: its history is in {place}{remedy}")


async def unknown_fault(connection: Connection, execution_id: int) -> NotFoundFault:
    """The fault for an id without an execution: it was dropped, or there was none."""
    return await archived_fault(connection, execution_id) or NotFoundFault(
        f"no execution {execution_id}; noetl-broker executions lists them"
    )


def _schema_of_archive(connection: Connection) -> str:
    return rendered("noetl_archive", schema_of(connection), shards=getattr(connection, "shards", None))


async def retry_on_lock(work: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Retry with a short lock timeout: a long wait for a table lock would block everybody behind it."""
    for _ in range(TRIES):
        try:
            return await work(*arguments)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(PAUSE_SECONDS)
    raise DatabaseFault(
        f"a table was in use at each of {TRIES} tries, for {TRIES * PAUSE_SECONDS:.0f} s and more; "
        "a long transaction may hold it: pg_stat_activity shows which; the next call goes on where this one was"
    )
