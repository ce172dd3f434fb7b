"""Many histories, one after the other: some small ones at a time, a long one in parts, so that memory stays flat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from noetl_broker.broker.history import History, RecordedTurn
from noetl_broker.errors import HistoryFault
from noetl_broker.store.executions import like
from noetl_broker.store.history import (
    Jobs,
    Versions,
    history_of,
    jobs_of,
    load_histories,
    never_read,
    strays_of,
    turns_of,
    unreadable,
)
from noetl_broker.store.pool import Connection
from noetl_broker.store.queries import sql

PAGE = 1000  # ids at a time
MOST_EXECUTIONS = 100  # in one batch
MOST_TURNS = 1000  # in one batch
MOST_BYTES = 4 << 20  # in one batch, or about so many in one part, as they are stored: text is compressed there
PART_TURNS = 250  # in one part of a long history
PATIENCE_SECONDS = 600.0  # for the first rows of a long history, which is sorted before
T = TypeVar("T")
READ_ERRORS = (TypeError, ValueError, KeyError, AttributeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which executions: of a playbook (`*` for any characters), in a status, started not before; None: all."""

    path: str | None = None
    status: str | None = None
    since: datetime | None = None

    @property
    def arguments(self) -> tuple[object, ...]:
        """As the statements take them."""
        return None if self.path is None else like(self.path), self.status, self.since


ALL = Filter()


class Part(NamedTuple):
    """A history, or a piece of a long one: then `history` has no turns, jobs and strays of its own.

    `last`: nothing of this execution follows. The last one may be a history that is `broken`.
    """

    history: History
    turns: tuple[RecordedTurn, ...]
    jobs: Jobs | None = None  # None: they are in the history
    strays: tuple[str, ...] = ()
    first: bool = True
    last: bool = True

    def readable_turns(self) -> tuple[RecordedTurn, ...]:
        """Its turns; raises HistoryFault where they cannot be read."""
        if self.history.broken is not None:
            raise HistoryFault(self.history.execution_id, self.history.broken)
        return self.turns


class Weight(NamedTuple):
    """What loading an execution would bring."""

    execution_id: int
    turns: int
    bytes: int

    @property
    def long(self) -> bool:
        """Whether it is loaded in parts."""
        return self.turns > MOST_TURNS or self.bytes > MOST_BYTES


async def count_histories(connection: Connection, which: Filter) -> int:
    """How many executions there are of this kind."""
    return int(await connection.fetchval(sql("count_histories"), *which.arguments))


async def weigh(connection: Connection, which: Filter) -> AsyncGenerator[list[Weight], None]:
    """All executions of this kind that the broker has read, oldest first, in loads that fit into memory."""
    last = 0
    while True:
        rows = await connection.fetch(sql("history_ids"), last, *which.arguments, PAGE)
        for load in pack([Weight(row["execution_id"], row["turns"], row["bytes"]) for row in rows]):
            yield load
        if len(rows) < PAGE:
            return
        last = rows[-1]["execution_id"]


async def weigh_each(connection: Connection, execution_ids: Sequence[int]) -> AsyncGenerator[list[Weight], None]:
    """These executions, in this order; raises NotFoundFault for one that the broker has never read."""
    for execution_id in execution_ids:
        row = await connection.fetchrow(sql("weigh_history"), execution_id)
        if row is None:
            raise await never_read(connection, execution_id)
        yield [Weight(row["execution_id"], row["turns"], row["bytes"])]


def pack(weights: list[Weight]) -> Iterator[list[Weight]]:
    """Group neighbours as long as they are small together; a long one stands alone."""
    load: list[Weight] = []
    turns = size = 0
    for weight in weights:
        turns, size = turns + weight.turns, size + weight.bytes
        if load and (turns > MOST_TURNS or size > MOST_BYTES or len(load) == MOST_EXECUTIONS):
            yield load
            load, turns, size = [], weight.turns, weight.bytes
        load.append(weight)
    if load:
        yield load


async def read(connection: Connection, load: list[Weight], versions: Versions) -> AsyncGenerator[Iterable[Part], None]:
    """The histories of one load: what is here at once, each made when it is asked for."""
    if len(load) == 1 and load[0].long:
        async with aclosing(_in_parts(connection, load[0], versions)) as parts:
            async for part in parts:
                yield (part,)
        return
    histories = await load_histories(connection, [weight.execution_id for weight in load], versions)
    yield (Part(history, history.turns, strays=history.strays) for history in histories)


async def ahead(source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Yield what the source yields, and have the next on its way meanwhile, whenever the event loop may run."""

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


async def _in_parts(connection: Connection, weight: Weight, versions: Versions) -> AsyncGenerator[Part, None]:
    """One long history: its turns, and beside them what they wrote, through cursors of one moment."""
    ids = [weight.execution_id]
    count = max(1, min(PART_TURNS, MOST_BYTES * weight.turns // max(weight.bytes, 1)))
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(sql("history_patience"))
        [head] = await connection.fetch(sql("history_heads"), ids)
        rows = await connection.fetch(sql("history_rows"), ids)
        taken = await connection.fetch(sql("history_taken"), ids)
        await versions.load(connection, {head["catalog_id"]} - {None})
        begun = False
        try:
            history = history_of(head, versions.of(head), rows, taken)
            async with aclosing(_parts(connection, history, count)) as parts:
                async for part in parts:
                    begun = True
                    yield part
        except READ_ERRORS as error:
            yield Part(unreadable(head, versions.of(head), error), (), first=not begun)


async def _parts(connection: Connection, history: History, count: int) -> AsyncGenerator[Part, None]:
    ids = [history.execution_id]
    names = ("history_turns", "history_events", "history_jobs")
    cursor, of_events, of_jobs = [await connection.cursor(sql(name), ids) for name in names]
    events = _Ahead(of_events, count, lambda row: row["meta"]["turn"])
    jobs = _Ahead(of_jobs, count, lambda row: row["turn"])
    strays: list[Any] = []
    page, first = await cursor.fetch(count, timeout=PATIENCE_SECONDS), True
    while True:
        following = await cursor.fetch(count, timeout=PATIENCE_SECONDS) if page else []
        upto = page[-1]["turn"] if following else None
        turns, more = turns_of(page, await events.take(upto))
        strays += more
        told = jobs_of(await jobs.take(upto), history.workload)
        if not following:
            sentences = await strays_of(connection, history.execution_id, strays)
            yield Part(history, turns, told, sentences, first)
            return
        yield Part(history, turns, told, (), first, last=False)
        page, first = following, False


class _Ahead:
    """A cursor over rows in turn order that has been read a little further than was asked."""

    def __init__(self, cursor: Any, count: int, turn: Any) -> None:
        self._cursor = cursor
        self._count = count
        self._turn = turn
        self._rows: list[Any] = []
        self._over = False

    async def take(self, upto: int | None) -> list[Any]:
        """The rows up to this turn (None: all that are left); one that names no turn comes at once."""
        taken: list[Any] = []
        while True:
            place = next((at for at, row in enumerate(self._rows) if self._is_after(row, upto)), None)
            taken += self._rows[:place]
            self._rows = [] if place is None else self._rows[place:]
            if self._rows or self._over:
                return taken
            self._rows = await self._cursor.fetch(self._count, timeout=PATIENCE_SECONDS)
            self._over = not self._rows

    def _is_after(self, row: Any, upto: int | None) -> bool:
        number = self._turn(row)
        return upto is not None and type(number) is int and number > upto
