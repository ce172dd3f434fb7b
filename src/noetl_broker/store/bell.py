"""The bell: a connection of its own that listens for new events, and the gate that says whether anybody must ring.

The connection is outside the pool and never in a transaction. What it hears is only a hint: the inbox is the truth.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from noetl_broker.store.faults import is_transient, told
from noetl_broker.store.pool import CALL_SECONDS, LISTEN_SECONDS, connect, lent
from noetl_broker.store.queries import sql

if TYPE_CHECKING:
    import asyncpg

log = structlog.get_logger(__name__)

CHANNEL = "noetl_event"
RECONNECT_SECONDS = (0.1, 1.0)
FULL_ENOUGH = 0.5  # of the notification queue, which is full at 1


class Bell:
    """Listens, and knows when it last heard anything; `rung` is set by every ring and every other reason to look."""

    def __init__(self, dsn: str | None) -> None:
        """Not connected yet: call `connect`."""
        self._dsn = dsn
        self._connection: asyncpg.Connection[Any] | None = None
        self._name = f"probe:{uuid.uuid4().hex[:12]}"
        self.rung = asyncio.Event()
        self.lost = asyncio.Event()  # the connection is gone, or was once
        self.connected_at = self.heard_at = 0.0  # monotonic seconds
        self.gate_held = False
        self.reconnects = 0
        self._asking = asyncio.Lock()  # one statement at a time
        self.queue_usage = 0.0

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as this end knows."""
        return self._connection is not None and not self._connection.is_closed()

    async def connect(self) -> None:
        """Connect and LISTEN; whatever came before is found by the drain that follows."""
        await self.close()
        async with asyncio.timeout(LISTEN_SECONDS):
            connection = await connect(self._dsn, name="noetl-broker bell", takes="writes")
            try:
                await connection.add_listener(CHANNEL, self._hear)
            except BaseException:
                connection.terminate()
                raise
        connection.add_termination_listener(self._lose)
        self._connection = connection
        self.connected_at = self.heard_at = time.monotonic()  # what was rung before cannot be heard
        self.rung.set()

    async def keep_connected(self, stopping: asyncio.Event, on_try: Callable[[], None] = lambda: None) -> None:
        """Connect, again and again with growing pauses, until it stands or the daemon stops.

        `on_try` is called each time. Raises what no further try will mend.
        """
        self.lost.clear()
        pause = RECONNECT_SECONDS[0]
        while not self.connected and not stopping.is_set():
            on_try()
            try:
                await self.connect()
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("the listener cannot connect, will try again", **told(error), pause_seconds=pause)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), pause)
                pause = min(pause * 2, RECONNECT_SECONDS[1])
            else:
                self.reconnects += 1

    async def close(self) -> None:
        """Hang up, without waiting for a server that may be gone."""
        connection, self._connection, self.gate_held = self._connection, None, False
        if connection is not None:
            connection.terminate()
            self._lose(connection)

    async def take_gate(self) -> bool:
        """Whether writers will ring from now on; False while a writer or another broker holds the gate.

        Nor are they asked to while the notification queue fills up: a ring that finds it full fails their commit.
        """
        if self.queue_usage <= FULL_ENOUGH and not self.gate_held:
            self.gate_held = bool(await self._fetch("try_gate"))
        if self.queue_usage > FULL_ENOUGH:  # perhaps since we asked
            await self.release_gate()
        return self.gate_held

    async def release_gate(self) -> None:
        """We are awake: nobody needs to ring."""
        if self.gate_held:
            self.gate_held = False
            await self._fetch("release_gate")

    async def probe(self, pool: asyncpg.Pool[Any]) -> None:
        """Ring ourselves from another connection: a listener that is silently dead does not hear it."""
        async with lent(pool, CALL_SECONDS) as connection:
            await connection.execute(sql("probe_bell"), self._name)

    async def look_at_queue(self, pool: asyncpg.Pool[Any]) -> None:
        """See how full the server's notification queue is (1 is full); to ask also drops what all have read."""
        async with lent(pool, CALL_SECONDS) as connection:
            self.queue_usage = float(await connection.fetchval(sql("notification_queue_usage")))
        if self.queue_usage > FULL_ENOUGH and self.gate_held:
            self.rung.set()  # nobody else will
            await self.release_gate()

    def deaf_since(self, probed_at: float) -> bool:
        """Whether a probe sent at `probed_at` (monotonic seconds) has not been heard."""
        return self.connected and self.heard_at < probed_at

    async def _fetch(self, name: str) -> object:
        async with self._asking:
            connection = self._connection
            if connection is None:
                raise ConnectionError("the listener is not connected")
            try:
                answer = await connection.fetchval(sql(name), timeout=CALL_SECONDS)
            except BaseException:
                if connection is self._connection:
                    await self.close()  # it may be half open
                raise
            if connection is not self._connection:
                raise ConnectionError("the listener has connected anew")
            return answer

    def _lose(self, _connection: object) -> None:
        """The connection is gone: whoever sleeps must wake, for nobody rings any more."""
        self.lost.set()
        self.rung.set()

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self.heard_at = time.monotonic()
        if not str(payload).startswith("probe:"):
            self.rung.set()
