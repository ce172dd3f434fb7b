"""Tells open streams which executions have changed. One poll of turn numbers serves all streams.

A stream gets the present state of an execution, not a log of changes. Several changes between two polls become one
message. A slow reader misses only states that are out of date.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from heapq import nlargest

from noetl_broker.console.connections import Connections
from noetl_broker.errors import BrokerError
from noetl_broker.growing_pauses import Backoff
from noetl_broker.store.admin.changes import NEWEST, Attention, LatestTurn, count_attention, load_latest_turns
from noetl_broker.tasks import wait_for

POLL_SECONDS = 0.25  # between two polls, while there are streams
COUNT_SECONDS = 1.0  # between two counts of what waits for a person
MOST_POLL_SECONDS = 1.0  # a busy machine makes a poll slow, and not expensive: it reads a bounded number of rows
POLL_SHARE = 24  # a poll that takes the server long is followed by a pause so many times as long
PAUSES = (0.5, 5.0)  # seconds between attempts while the database is away
MOST_STREAMS = 500
MOST_OF_CALLER = 200  # of these: one caller must not hold all
MOST_PENDING = 10_000  # executions of a stream whose reader takes nothing; then it ends


class Stream:
    """The changes that one reader has not got yet; `execution_ids` None: of all executions. `caller`: whose it is."""

    def __init__(self, execution_ids: frozenset[int] | None, caller: str = "") -> None:
        self.execution_ids = execution_ids
        self.caller = caller
        self.watched = asyncio.Event()  # set by the first poll for it
        self.is_away = False  # whether the database does not answer
        self.attention: Attention | None = None  # the latest counts
        self.is_lost = False  # too much was kept for a reader who took nothing: the stream ends
        self._told: dict[int, LatestTurn] = {}
        self._pending: dict[int, LatestTurn] = {}
        self._ready = asyncio.Event()

    def offer(self, turns: Mapping[int, LatestTurn]) -> None:
        """Keep what is new to the reader; nothing if the stream is lost."""
        if self.is_lost:
            return
        for execution_id, latest in turns.items():
            if self._told.get(execution_id) != latest:
                self._pending[execution_id] = latest
                self._ready.set()
            if self.execution_ids is not None:
                self._told[execution_id] = latest
        if len(self._pending) > MOST_PENDING:
            self.is_lost, self._pending = True, {}

    def say_away(self, *, is_away: bool) -> None:
        """Wake the reader when the database stops or begins to answer."""
        if is_away != self.is_away:
            self.is_away = is_away
            self._ready.set()

    def say_attention(self, attention: Attention) -> None:
        """Wake the reader when the counts of what waits for a person change."""
        if attention != self.attention:
            self.attention = attention
            self._ready.set()

    async def next(self, seconds: float) -> dict[int, LatestTurn]:
        """The changes since the last call; waits for some, for at most `seconds`."""
        await wait_for(self._ready, seconds)
        self._ready.clear()
        found, self._pending = self._pending, {}
        return found

    def end(self) -> None:
        """Wake the reader: the console stops."""
        self.watched.set()
        self._ready.set()


class Changes:
    """The open streams and the task that polls for them; without a stream nothing is polled."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._streams: set[Stream] = set()
        self._known: dict[int, LatestTurn] | None = None  # of the newest executions; None: nobody asked yet
        self._task: asyncio.Task[None] | None = None
        self.attention: Attention | None = None  # while there are streams
        self._counted_at = 0.0
        self.closed = False

    def is_full(self, caller: str) -> bool:
        """Whether there are as many streams as may be, of all callers or of this one."""
        own = sum(stream.caller == caller for stream in self._streams)
        return own >= MOST_OF_CALLER or len(self._streams) >= MOST_STREAMS

    @contextmanager
    def subscribe(self, execution_ids: frozenset[int] | None, caller: str = "") -> Iterator[Stream]:
        """A stream of these executions, which begins with the state of each; None: a stream of all changes."""
        stream = Stream(execution_ids, caller)
        self._streams.add(stream)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll(), name="changes")
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        for stream in self._streams:
            stream.end()
        if self._task is not None:
            self._task.cancel()

    async def _poll(self) -> None:
        backoff = Backoff(*PAUSES)
        while self._streams:
            try:
                seconds = await self._read_turns()
            except BrokerError:
                self._say_away(is_away=True)
                await asyncio.sleep(backoff.next())
                continue
            self._say_away(is_away=False)
            backoff.reset()
            await asyncio.sleep(max(POLL_SECONDS, min(MOST_POLL_SECONDS, seconds * POLL_SHARE)))
        self._known = self.attention = None

    def _say_away(self, *, is_away: bool) -> None:
        for stream in self._streams:
            stream.say_away(is_away=is_away)

    async def _read_turns(self) -> float:
        """Ask once, and offer each stream what concerns it; gives the seconds that the server took."""
        everything = any(stream.execution_ids is None for stream in self._streams)
        known = self._known or {}
        named = {one for stream in self._streams for one in stream.execution_ids or ()}
        # An execution that has ended may not be among the newest any more.
        running = {one for one, latest in known.items() if latest.is_live} if everything else set()
        ended = nlargest(NEWEST, known.keys() - running)
        async with self._connections.borrow() as connection:
            found, seconds = await load_latest_turns(connection, named | running, newest=everything, ended=ended)
            if time.monotonic() - self._counted_at >= COUNT_SECONDS:
                self.attention = await count_attention(connection)
                self._counted_at = time.monotonic()
        changed = {one: latest for one, latest in found.items() if known.get(one) != latest}
        for stream in self._streams:
            if self.attention is not None:
                stream.say_attention(self.attention)
            if stream.execution_ids is not None:
                stream.offer({one: found[one] for one in stream.execution_ids if one in found})
            elif everything:
                if self._known is not None:
                    stream.offer(changed)
                stream.watched.set()
        self._known = {one: known[one] for one in ended} | found if everything else None
        return seconds


def as_message(changes: Mapping[int, LatestTurn]) -> str:
    """The changes as one event of a stream."""
    listed = [
        {"execution_id": str(execution_id), "turn": latest.turn, "status": latest.status}
        for execution_id, latest in sorted(changes.items())
    ]
    return f"event: changes\ndata: {json.dumps({'changes': listed}, separators=(',', ':'))}\n\n"


def as_counts(attention: Attention) -> str:
    """How much waits for a person, as one event of a stream."""
    return f"event: attention\ndata: {json.dumps(attention._asdict(), separators=(',', ':'))}\n\n"


def as_word_of_database(*, is_away: bool) -> str:
    """Whether the database answers, as one event of a stream."""
    return f"event: database\ndata: {json.dumps({'away': is_away}, separators=(',', ':'))}\n\n"
