"""Loads many histories with flat memory: small ones in batches, a long one in parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, TypeVar

from noetl_broker.history.record import History, HistoryPart
from noetl_broker.store.admin.erasures import refuse_erased
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.admin.history import (
    Versions,
    catalog_ids_of,
    history_of,
    jobs_of,
    load_histories,
    load_taken,
    turns_of,
    unlinked_events,
    unread_history_fault,
    unreadable,
)
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql

PAGE = 1000  # ids
MOST_EXECUTIONS = 100  # in one batch
MOST_TURNS = 1000  # in one batch
MOST_BYTES = 4 << 20  # in one batch or part, as stored: text is compressed
PART_TURNS = 250  # in one part of a long history
PATIENCE_SECONDS = 600.0  # for the first rows of a long history, which must be sorted
T = TypeVar("T")
READ_ERRORS = (TypeError, ValueError, KeyError, AttributeError)


class HistorySize(NamedTuple):
    """The size of an execution's history."""

    execution_id: int
    turns: int
    bytes: int

    @property
    def long(self) -> bool:
        """Whether it is loaded in parts."""
        return self.turns > MOST_TURNS or self.bytes > MOST_BYTES


async def count_histories(connection: Connection, which: Filter) -> int:
    """The number of executions that match a filter."""
    return int(await connection.fetchval(*which.call("count_histories")))


async def measure_sizes(connection: Connection, which: Filter) -> AsyncGenerator[list[HistorySize], None]:
    """All matching executions with turns, oldest first, in batches that fit into memory."""
    last = 0
    while True:
        rows = await connection.fetch(*which.call("history_ids", last, PAGE))
        for batch in group_into_batches([HistorySize(row["execution_id"], row["turns"], row["bytes"]) for row in rows]):
            yield batch
        if len(rows) < PAGE:
            return
        last = rows[-1]["execution_id"]


async def measure_sizes_of(
    connection: Connection, execution_ids: Sequence[int]
) -> AsyncGenerator[list[HistorySize], None]:
    """These executions, in this order; raises NotFoundFault for one without turns, and ErasedFault."""
    for execution_id in execution_ids:
        await refuse_erased(connection, execution_id)
        row = await connection.fetchrow(sql("history_size"), execution_id)
        if row is None:
            raise await unread_history_fault(connection, execution_id)
        yield [HistorySize(row["execution_id"], row["turns"], row["bytes"])]


def group_into_batches(histories: list[HistorySize]) -> Iterator[list[HistorySize]]:
    """Group neighbours while they are small together; a long one is alone."""
    batch: list[HistorySize] = []
    turns = size = 0
    for history in histories:
        turns, size = turns + history.turns, size + history.bytes
        if batch and (turns > MOST_TURNS or size > MOST_BYTES or len(batch) == MOST_EXECUTIONS):
            yield batch
            batch, turns, size = [], history.turns, history.bytes
        batch.append(history)
    if batch:
        yield batch


async def read(
    connection: Connection, batch: list[HistorySize], versions: Versions
) -> AsyncGenerator[Iterable[HistoryPart], None]:
    """The histories of one batch, or the parts of a long one."""
    if len(batch) == 1 and batch[0].long:
        async with aclosing(_in_parts(connection, batch[0], versions)) as parts:
            async for part in parts:
                yield (part,)
        return
    histories = await load_histories(connection, [size.execution_id for size in batch], versions)
    yield (HistoryPart(history, history.turns, unlinked=history.unlinked) for history in histories)


async def prefetch(source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Yield the items of the source, and fetch the next one meanwhile."""

    async def pull() -> T | None:
        return await anext(source, None)

    coming = asyncio.create_task(pull())
    try:
        while (item := await coming) is not None:
            coming = asyncio.create_task(pull())
            yield item
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await source.aclose()


async def _in_parts(connection: Connection, size: HistorySize, versions: Versions) -> AsyncGenerator[HistoryPart, None]:
    """One long history in parts, read through cursors in one snapshot."""
    ids = [size.execution_id]
    count = max(1, min(PART_TURNS, MOST_BYTES * size.turns // max(size.bytes, 1)))
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(sql("history_patience"))
        [head] = await connection.fetch(sql("history_heads"), ids)
        rows = await connection.fetch(sql("history_rows"), ids)
        taken = await load_taken(connection, ids)
        await versions.load(connection, catalog_ids_of([head]))
        begun = False
        try:
            history = history_of(head, versions.of(head), rows, taken, undo_versions=versions.of_undos(head))
            async with aclosing(_parts(connection, history, count)) as parts:
                async for part in parts:
                    begun = True
                    yield part
        except READ_ERRORS as error:
            yield HistoryPart(unreadable(head, versions.of(head), error), (), first=not begun)


async def _parts(connection: Connection, history: History, count: int) -> AsyncGenerator[HistoryPart, None]:
    ids = [history.execution_id]
    names = ("history_turns", "history_events", "history_jobs")
    cursor, of_events, of_jobs = [await connection.cursor(sql(name), ids) for name in names]
    events = _PrefetchCursor(of_events, count, lambda row: row["meta"]["turn"])
    jobs = _PrefetchCursor(of_jobs, count, lambda row: row["turn"])
    unlinked: list[Any] = []
    page, first = await cursor.fetch(count, timeout=PATIENCE_SECONDS), True
    while True:
        following = await cursor.fetch(count, timeout=PATIENCE_SECONDS) if page else []
        upto = page[-1]["turn"] if following else None
        turns, more = turns_of(page, await events.take(upto))
        unlinked += more
        own_jobs = jobs_of(await jobs.take(upto), history.workload)
        if not following:
            sentences = await unlinked_events(connection, history.execution_id, unlinked)
            yield HistoryPart(history, turns, own_jobs, sentences, first)
            return
        yield HistoryPart(history, turns, own_jobs, (), first, last=False)
        page, first = following, False


class _PrefetchCursor:
    """Reads a cursor over rows in turn order up to a turn, and keeps what it read beyond."""

    def __init__(self, cursor: Any, count: int, turn: Any) -> None:
        self._cursor = cursor
        self._count = count
        self._turn = turn
        self._rows: list[Any] = []
        self._over = False

    async def take(self, upto: int | None) -> list[Any]:
        """The rows up to this turn (None: all); a row without a turn is returned at once."""
        taken: list[Any] = []
        while True:
            end = next((at for at, row in enumerate(self._rows) if self._is_after(row, upto)), None)
            taken += self._rows[:end]
            self._rows = [] if end is None else self._rows[end:]
            if self._rows or self._over:
                return taken
            self._rows = await self._cursor.fetch(self._count, timeout=PATIENCE_SECONDS)
            self._over = not self._rows

    def _is_after(self, row: Any, upto: int | None) -> bool:
        number = self._turn(row)
        return upto is not None and type(number) is int and number > upto
