"""Drops old executions for good: whole periods, and ended executions outside of periods.

A period is marked first: no undo, fork or retry begins in it. Then it is examined again. What still needs its rows
moves to the default partition with its family, if it is little; else the period stays. Each table is detached and
dropped in transactions of its own. After an interruption the next call continues.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

from noetl_broker.store.admin.archive import BEFORE_ALL_IDS, EVENTS, retry_on_lock
from noetl_broker.store.connect.connection import Connection, call
from noetl_broker.store.queries import sql

BATCH = 500  # executions that are deleted in one transaction
MOST_KEPT = 1000  # executions, with their families, that move to the default partition
MOST_ROWS = 2000  # of them in one table: they move under a lock, which 5,000 rows can hold for 0.15 s
TRIES = 5  # of finding all that needs its rows, while executions still change
PAGE, PAGES = 5000, 20  # of keys that are looked at in one call


class DropOutcome(NamedTuple):
    """What became of a period: `executions` were deleted and `kept` moved, or something holds it (`held_by`).

    The `period` is empty for executions outside of periods.
    """

    period: str
    executions: int = 0
    kept: int = 0
    held_by: str | None = None


class Holders(NamedTuple):
    """The executions that need the rows of a period, with their families; or why they are too many (`reason`)."""

    ids: list[int]
    reason: str | None


@dataclass(slots=True)
class KeyPlace:
    """The last key that a sweep has looked at, and its path."""

    key: str = ""
    path: str = ""


async def begun(connection: Connection) -> bool:
    """Whether a period is marked and not dropped yet."""
    return bool(await connection.fetchval(sql("is_dropping_begun")))


async def drop_old(connection: Connection, keep: float | None) -> AsyncIterator[DropOutcome]:
    """Drop periods whose executions all ended more than `keep` seconds ago; None: only end what has begun.

    Drops nothing while another session archives or drops. This session keeps the lock for that; it has no time limits.
    """
    await connection.fetchval(sql("archive_patience"))
    if not await connection.fetchval(sql("take_archive")):
        return
    for period in await connection.fetch(sql("periods_to_drop"), keep):
        if period["kept"] is None and (held_by := await _begin(connection, period, keep)) is not None:
            await _mark(connection, period, "stay", held_by or None)
            if held_by:
                yield DropOutcome(period["name"], held_by=held_by)
            continue
        yield await _finish(connection, period)
    if keep is not None and (executions := await _drop_outside(connection, keep)):
        yield DropOutcome("", executions)


async def _drop_outside(connection: Connection, keep: float) -> int:
    dropped, last = 0, BEFORE_ALL_IDS
    while (row := await connection.fetchrow(sql("drop_without_period"), last, keep, BATCH)) and row["last_id"]:
        dropped, last = dropped + row["dropped"], row["last_id"]
    return dropped


async def _mark(connection: Connection, period: asyncpg.Record, mark: str, reason: str | None = None) -> None:
    await retry_on_lock(call, connection, "mark_period", period["name"], mark, reason)


async def _begin(connection: Connection, period: asyncpg.Record, keep: float | None) -> str | None:
    """Mark the period and detach its events. Returns why that is not possible; an empty text: it shall not be."""
    if keep is None:
        return ""
    holders = await _find_holders(connection, period, keep)
    if holders.reason is not None:
        return holders.reason
    if period["dropping_at"] is None:
        await _mark(connection, period, "drop")
    for _ in range(TRIES):
        holders = await _find_holders(connection, period, keep)
        if holders.reason is not None:
            return holders.reason
        if await retry_on_lock(_take_events, connection, period, holders.ids):
            return None
    return "other executions need its rows at each look"


async def _find_holders(connection: Connection, period: asyncpg.Record, keep: float) -> Holders:
    ids = period["first_id"], period["next_id"]
    found = [
        *await connection.fetch(sql("living_in_period"), *ids, MOST_KEPT),
        *await connection.fetch(sql("young_in_period"), *ids, keep, MOST_KEPT),
    ]
    if not found:
        return Holders([], None)
    of = sorted({row["execution_id"] for row in found})
    family = await connection.fetch(sql("families_in_period"), *ids, of, MOST_KEPT)
    kept = [row["execution_id"] for row in family]
    some = f"for example execution {found[0]['execution_id']}: {found[0]['reason']}"
    if period["archived_at"] is not None:
        return Holders(kept, f"it is archived, and {len(of)} executions hold it, {some}")
    if len(kept) >= MOST_KEPT:
        return Holders(kept, f"{MOST_KEPT} executions or more hold it with their families, {some}")
    if await connection.fetchval(sql("most_rows_of"), kept) > MOST_ROWS:
        return Holders(kept, f"{len(kept)} executions hold it with more than {MOST_ROWS} rows in a table, {some}")
    return Holders(kept, None)


async def _take_events(connection: Connection, period: asyncpg.Record, kept: list[int]) -> bool:
    """Detach the events, unless another execution needs the period by now. From then on it is dropped."""
    transaction = connection.transaction()
    await transaction.start()
    taken = False
    try:
        await call(connection, "drop_partition", EVENTS, period["name"], kept)
        living = await connection.fetch(sql("living_in_period"), period["first_id"], period["next_id"], MOST_KEPT)
        taken = {row["execution_id"] for row in living} <= {*kept}
    finally:
        await (transaction.commit() if taken else transaction.rollback())
    return taken


async def _finish(connection: Connection, period: asyncpg.Record) -> DropOutcome:
    name = period["name"]
    kept: list[int] = await connection.fetchval(sql("kept_of_period"), name)
    of: Any = {row["period"]: row for row in await connection.fetch(sql("list_partitions"))}.get(name)
    attached, detached = ((), ()) if of is None else (of["attached"], of["detached"])
    for table in [*attached, *attached, *detached]:  # the first call detaches a table, the next one drops it
        await retry_on_lock(call, connection, "drop_partition", table, name, kept)
    dropped = 0
    ids = period["first_id"], period["next_id"], kept, BATCH
    while found := await connection.fetch(sql("executions_of_period"), *ids):
        some = await call(connection, "drop_executions", [row["execution_id"] for row in found])
        dropped += some
        if some == 0:  # they have mail: the next call goes on
            return DropOutcome(name, dropped, len(kept), f"{len(found)} executions have unread mail")
    await _mark(connection, period, "dropped")
    return DropOutcome(name, dropped, len(kept))


async def sweep_keys(connection: Connection, keep_keys: float, place: KeyPlace) -> int:
    """Delete keys of dropped executions that are older than `keep_keys` seconds. Goes on at `place`, and sets it."""
    deleted = 0
    for _ in range(PAGES):
        row = await connection.fetchrow(sql("sweep_keys"), place.key, place.path, keep_keys, PAGE)
        if row is None:
            place.key = place.path = ""
            break
        place.key, place.path = row["idempotency_key"], row["path"]
        deleted += row["deleted"]
    return deleted
