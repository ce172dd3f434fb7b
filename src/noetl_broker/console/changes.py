"""Tells open streams which executions have changed. One poll of turn numbers serves all streams.

A stream gets the present state of an execution, not a log of changes. Several changes between two polls become one
message. A slow reader misses only states that are out of date.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from heapq import nlargest
from typing import NamedTuple

from noetl_broker.console.connections import Connections
from noetl_broker.errors import BrokerError
from noetl_broker.growing_pauses import Backoff
from noetl_broker.store.admin.changes import NEWEST, Attention, LatestTurn, count_attention, load_latest_turns
from noetl_broker.store.admin.overview import MOST_COUNTED
from noetl_broker.store.connect.bucket_connections import BucketConnections, Place
from noetl_broker.store.connect.connection import Connection
from noetl_broker.tasks import wait_for

POLL_SECONDS = 0.25  # between two polls, while there are streams
COUNT_SECONDS = 1.0  # between two counts of what waits for a person
MOST_POLL_SECONDS = 1.0  # a busy machine makes a poll slow, and not expensive: it reads a bounded number of rows
POLL_SHARE = 24  # a poll that takes the server long is followed by a pause so many times as long
PAUSES = (0.5, 5.0)  # seconds between attempts while the database is away
MOST_STREAMS = 500
MOST_OF_CALLER = 200  # of these: one caller must not hold all


class Polled(NamedTuple):
    """What the polls know by now. `everything`: also of the newest executions."""

    turns: Mapping[int, LatestTurn]
    everything: bool = False
    attention: Attention | None = None
    is_away: bool = False  # whether the database does not answer


NOTHING = Polled({})


class Stream:
    """What one reader was told; `execution_ids` None: of all executions. `caller`: whose it is."""

    def __init__(self, execution_ids: frozenset[int] | None, caller: str) -> None:
        self.execution_ids = execution_ids
        self.caller = caller
        self.ready = asyncio.Event()
        self._told = NOTHING

    def tell(self, now: Polled) -> Iterator[str]:
        """The messages about what is new to the reader."""
        told, self._told = self._told, now
        if now.is_away != told.is_away:
            yield as_message("database", away=now.is_away)
        begins = self.execution_ids is None and not told.everything
        ids = now.turns.keys() if self.execution_ids is None else self.execution_ids & now.turns.keys()
        changed = [] if begins else [one for one in sorted(ids) if told.turns.get(one) != now.turns[one]]
        if changed or (begins and now.everything):
            listed = [
                {"execution_id": str(one), "turn": now.turns[one].turn, "status": now.turns[one].status}
                for one in changed
            ]
            yield as_message("changes", changes=listed)
        if now.attention is not None and now.attention != told.attention:
            yield as_message("attention", **now.attention._asdict())


class Changes:
    """The open streams and the task that polls for them; without a stream nothing is polled."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._streams: set[Stream] = set()
        self._polled = NOTHING
        self._task: asyncio.Task[None] | None = None
        self._counted_at = 0.0
        self.closed = False

    @property
    def attention(self) -> Attention | None:
        """How much waits for a person; None while there are no streams."""
        return self._polled.attention

    def is_full(self, caller: str) -> bool:
        """Whether there are as many streams as may be, of all callers or of this one."""
        own = sum(stream.caller == caller for stream in self._streams)
        return own >= MOST_OF_CALLER or len(self._streams) >= MOST_STREAMS

    @contextmanager
    def subscribe(self, execution_ids: frozenset[int] | None, caller: str = "") -> Iterator[Stream]:
        """A stream of these executions, which begins with the state of each; None: a stream of all changes."""
        stream = Stream(execution_ids, caller)
        stream.ready.set()
        self._streams.add(stream)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll(), name="changes")
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    async def next(self, stream: Stream, seconds: float) -> list[str]:
        """The messages about what changed since the last call; waits for some, for at most `seconds`."""
        await wait_for(stream.ready, seconds)
        stream.ready.clear()
        return list(stream.tell(self._polled))

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        self._wake()
        if self._task is not None:
            self._task.cancel()

    def _wake(self) -> None:
        for stream in self._streams:
            stream.ready.set()

    async def _poll(self) -> None:
        backoff = Backoff(*PAUSES)
        while self._streams:
            try:
                seconds = await self._read_turns()
                backoff.reset()
                pause = max(POLL_SECONDS, min(MOST_POLL_SECONDS, seconds * POLL_SHARE))
            except BrokerError:
                self._learn(self._polled._replace(is_away=True))
                pause = backoff.next()
            await asyncio.sleep(pause)
        self._polled = NOTHING

    async def _read_turns(self) -> float:
        """Ask once; gives the seconds that the server took."""
        everything = any(stream.execution_ids is None for stream in self._streams)
        named = {one for stream in self._streams for one in stream.execution_ids or ()}
        # An execution that has ended may not be among the newest any more.
        known = self._polled.turns if self._polled.everything and everything else {}
        running = {one for one, latest in known.items() if latest.is_live}
        ended = nlargest(NEWEST, known.keys() - running)
        attention = self._polled.attention
        async with self._connections.borrow() as connection:
            found, seconds = await turns_of(connection, named | running, newest=everything, ended=ended)
            if attention is None or time.monotonic() - self._counted_at >= COUNT_SECONDS:
                attention, self._counted_at = await attention_of(connection), time.monotonic()
        turns = {one: known[one] for one in ended} | found
        self._learn(Polled(turns, everything=everything, attention=attention))
        return seconds

    def _learn(self, now: Polled) -> None:
        """Keep what a poll found, and wake the readers if that is new."""
        if now != self._polled:
            self._polled = now
            self._wake()


async def attention_of(place: Place) -> Attention:
    """How much waits for a person, in all buckets that answer."""
    if not isinstance(place, BucketConnections):
        return await count_attention(place)
    counts = (await place.in_all(count_attention)).of.values()
    return Attention(*(min(sum(of), MOST_COUNTED) for of in zip(*counts, strict=True)))


async def turns_of(
    place: Place, execution_ids: Collection[int], *, newest: bool = False, ended: Collection[int] = ()
) -> tuple[dict[int, LatestTurn], float]:
    """The turns of executions, in all buckets that answer, and the seconds of the slowest."""

    async def load(connection: Connection) -> tuple[dict[int, LatestTurn], float]:
        return await load_latest_turns(connection, execution_ids, newest=newest, ended=ended)

    if not isinstance(place, BucketConnections):
        return await load(place)
    found = (await place.in_all(load)).of.values()
    turns = {one: latest for of, _ in found for one, latest in of.items()}
    return turns, max(seconds for _, seconds in found)


def as_message(event: str, **data: object) -> str:
    """One event of a stream."""
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
