"""History that leaves: whole periods of it are detached, rows outside of any period are moved, and nothing is deleted.

A period is archived in several short transactions. The first one takes the events away and marks the period: it then
asks once more who is still alive in it, and nobody who begins later can be in what it took. What is left of an
interrupted one is taken by the next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from noetl_broker.errors import DatabaseFault, NotFoundFault, OperatorFault
from noetl_broker.store.pool import Connection
from noetl_broker.store.queries import sql

EVENTS = "event"  # the table that leaves first: whatever begins or moves an execution writes to it
BATCH = 200  # executions whose rows move in one transaction
BEFORE_ALL_IDS = -(2**63)
TRIES, PAUSE_SECONDS = 20, 0.5


class Holder(NamedTuple):
    """An execution that keeps its period back, and why."""

    execution_id: int
    reason: str


class Period(NamedTuple):
    """A range of executions by their ids; `tables` of it are `attached`, or `detached` in the archive.

    `holders`: some of those that keep it back, `held` of them in all; of one that is not old enough nobody was asked.
    """

    name: str
    begins_at: datetime
    ends_at: datetime
    first_id: int
    next_id: int
    archived_at: datetime | None
    is_old: bool
    executions: int
    rows: int
    bytes: int
    attached: tuple[str, ...]
    detached: tuple[str, ...]
    holders: tuple[Holder, ...] = ()
    held: int = 0

    @property
    def is_due(self) -> bool:
        """Whether `archive_period` has something to do."""
        return bool(self.attached) and (self.archived_at is not None or (self.is_old and not self.held))


class Moved(NamedTuple):
    """How many executions left one by one, and how many rows they had."""

    executions: int
    rows: int


async def add_partition(connection: Connection, period_days: int) -> str | None:
    """Make one partition that is missing, for a period of so many days; its name, None: none is missing."""
    name: str | None = await connection.fetchval(sql("add_partition"), period_days)
    return name


async def be_alone(connection: Connection) -> None:
    """Wait until nobody else archives or restores; then nobody does for as long as the connection stands."""
    while not await connection.fetchval(sql("take_archive")):  # noqa: ASYNC110 - it is another process
        await asyncio.sleep(PAUSE_SECONDS)


async def list_periods(connection: Connection, older_than: float, *, examples: int = 3) -> list[Period]:
    """All periods, the oldest first, with what keeps the old ones back; `older_than` in seconds."""
    await connection.fetchval(sql("archive_patience"))
    periods = []
    for row in await connection.fetch(sql("list_periods"), older_than):
        period = Period(**{**row, "attached": tuple(row["attached"]), "detached": tuple(row["detached"])})
        if period.is_old and period.archived_at is None:
            holders, held = await _holders(connection, period, older_than, max(examples, 1))
            period = period._replace(holders=holders, held=held)
        periods.append(period)
    return periods


async def _holders(
    connection: Connection, period: Period, older_than: float, examples: int
) -> tuple[tuple[Holder, ...], int]:
    ids = period.first_id, period.next_id
    living = await connection.fetch(sql("living_in_period"), *ids, examples)
    young = await connection.fetch(sql("young_in_period"), *ids, older_than, examples)
    held = sum(rows[0]["holders"] for rows in (living, young) if rows)
    return tuple(Holder(row["execution_id"], row["reason"]) for row in [*living, *young][:examples]), held


async def archive_period(connection: Connection, period: Period, older_than: float) -> tuple[Holder, ...]:
    """Detach what is attached of a period that is due; gives who kept it back after all: nothing is changed."""
    tables = [*period.attached]
    if period.archived_at is None:
        holders, _ = await _holders(connection, period, older_than, 1)
        holders = holders or await _persistently(_take_events, connection, period)
        if holders:
            return holders
        tables = [table for table in tables if table != EVENTS]
    for table in tables:
        await _persistently(connection.fetchval, sql("detach_partition"), table, period.name)
    return ()


async def _take_events(connection: Connection, period: Period) -> tuple[Holder, ...]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        if EVENTS in period.attached:
            await connection.fetchval(sql("detach_partition"), EVENTS, period.name)
        # What was over a moment ago stays over; what came since then and lives must not be taken.
        living = await connection.fetch(sql("living_in_period"), period.first_id, period.next_id, 1)
        if not living:
            await connection.execute(sql("mark_archived"), period.name)
    except BaseException:
        await transaction.rollback()
        raise
    await (transaction.rollback() if living else transaction.commit())
    return tuple(Holder(row["execution_id"], row["reason"]) for row in living)


async def restore_period(connection: Connection, name: str, older_than: float = 0.0) -> Period:
    """Attach again what was detached of a period; raises NotFoundFault or OperatorFault where there is nothing to."""
    periods = {period.name: period for period in await list_periods(connection, older_than)}
    if name not in periods:
        raise NotFoundFault(f"there is no period {name}; noetl-broker archive --older-than 90d --dry-run shows them")
    period = periods[name]
    if period.archived_at is None:
        raise OperatorFault(f"the period {name} is not archived")
    if not period.detached and not period.attached:
        raise NotFoundFault(f"the tables of the period {name} are gone from the schema noetl_archive")
    for table in reversed(period.detached):
        await _persistently(connection.fetchval, sql("bound_partition"), table, name)
        await _persistently(connection.fetchval, sql("attach_partition"), table, name)
    await connection.execute(sql("mark_restored"), name)
    return period


async def outside_periods(connection: Connection, older_than: float) -> AsyncIterator[list[int]]:
    """Executions that are over and have rows outside of any period that is in use, a batch at a time."""
    last = BEFORE_ALL_IDS
    while rows := await connection.fetch(sql("executions_without_period"), last, older_than, BATCH):
        last = rows[-1]["execution_id"]
        if over := [row["execution_id"] for row in rows if row["over"]]:
            yield over


async def archive_rows(connection: Connection, execution_ids: list[int]) -> Moved:
    """Move the rows of these executions in one transaction, or one by one where an event has come for some of them.

    Those for which one has come stay: the next call finds it read.
    """
    try:
        return Moved(len(execution_ids), int(await connection.fetchval(sql("archive_rows"), execution_ids)))
    except asyncpg.SerializationError:
        if len(execution_ids) == 1:
            return Moved(0, 0)
    alone = [await archive_rows(connection, [execution_id]) for execution_id in execution_ids]
    return Moved(*map(sum, zip(*alone, strict=True)))


async def archived_fault(connection: Connection, execution_id: int) -> NotFoundFault | None:
    """What to tell whoever asks for the history of an execution that is archived; None: it is not."""
    row = await connection.fetchrow(sql("archived_as"), execution_id)
    if row is None:
        return None
    period = row["period"]
    remedy = f"; noetl-broker archive --restore {period} brings it back" if period else ""
    return NotFoundFault(f"execution {execution_id} is archived: its history is in the schema noetl_archive{remedy}")


async def _persistently(work: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Try until the lock is had: whoever waits for it for long would have all others wait behind."""
    for _ in range(TRIES):
        try:
            return await work(*arguments)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(PAUSE_SECONDS)
    raise DatabaseFault(
        f"a table was in use at each of {TRIES} tries, for {TRIES * PAUSE_SECONDS:.0f} s and more; "
        "a long transaction may hold it: pg_stat_activity shows which, archive goes on where it was when called again"
    )
