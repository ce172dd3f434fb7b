"""The broker's LISTEN connection, and the gate that tells writers whether they must NOTIFY.

The connection is outside the pool and never in a transaction. A notification is only a hint: the inbox has the events.
The gate is an advisory lock that a sleeping broker holds. A writer that finds it held sends a notification.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import structlog

from noetl_broker.growing_pauses import Backoff
from noetl_broker.store.connect.connection import CALL_SECONDS, LISTEN_SECONDS, borrowed, connect
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.nodes import NodeName, node_of
from noetl_broker.store.connect.sqlstates import is_transient, log_fields
from noetl_broker.store.queries import sql
from noetl_broker.tasks import wait_for

if TYPE_CHECKING:
    import asyncpg

log = structlog.get_logger(__name__)

CHANNEL = "noetl_event"
MATCH_CHANNEL = "noetl_match"  # a signal was sent, or a wait opened
THROTTLE_CHANNEL = "noetl_throttle"  # a request for a throttle was left
TIMER_CHANNEL = "noetl_timer"  # something is due earlier than a sleeping broker knows
RECONNECT_SECONDS = (0.1, 1.0)
MAX_QUEUE_USAGE = 0.5  # above this writers must not notify; the queue is full at 1


class Listener:
    """Listens; `notified` is set by each notification and each other reason to look at the inbox."""

    def __init__(
        self,
        database: Database,
        on_timer: Iterable[Callable[[], object]] = (),
        on_throttle: Callable[[], object] = lambda: None,
    ) -> None:
        """Not connected yet: call `connect`. Each of `on_timer` is called when something may be due earlier.

        `on_throttle` is called when a request for a throttle may have been left.
        """
        self._database = database
        self._on_timer = tuple(on_timer)
        self._on_throttle = on_throttle
        self._connection: asyncpg.Connection[Any] | None = None
        self._node: NodeName | None = None
        self._name = f"probe:{uuid.uuid4().hex[:12]}"
        self.notified = asyncio.Event()
        # Called by each notification of mail; True: somebody takes it, so `notified` is not set.
        self.on_mail: Callable[[], bool] = lambda: False
        self.match_requested = asyncio.Event()  # by each notification about signals
        self.match_gate_held = False
        self.lost = asyncio.Event()  # the connection has been lost since the last `keep_connected`
        self.connected_at = self.heard_at = 0.0  # monotonic seconds
        self.gate_held = False
        self.reconnects = 0
        self._asking = asyncio.Lock()  # one statement at a time
        self.queue_usage = 0.0

    @property
    def connected(self) -> bool:
        """Whether the connection is open, as far as this end knows."""
        return self._connection is not None and not self._connection.is_closed()

    async def connect(self) -> None:
        """Connect and LISTEN; the drain that follows finds earlier events."""
        await self.close()
        async with asyncio.timeout(LISTEN_SECONDS):
            connection = await connect(self._database, name="noetl-broker bell", takes="writes")
            try:
                await connection.add_listener(CHANNEL, self._hear)
                await connection.add_listener(TIMER_CHANNEL, self._hear_timer)
                await connection.add_listener(MATCH_CHANNEL, self._hear_match)
                await connection.add_listener(THROTTLE_CHANNEL, self._hear_throttle)
            except BaseException:
                connection.terminate()
                raise
        connection.add_termination_listener(self._lose)
        self._connection, self._node = connection, node_of(self._database)
        self.connected_at = self.heard_at = time.monotonic()  # earlier notifications cannot be heard
        self.notified.set()
        self._wake_timers()
        self._on_throttle()
        self.match_requested.set()

    async def keep_connected(self, stopping: asyncio.Event, on_try: Callable[[], None] = lambda: None) -> None:
        """Connect, with growing pauses between attempts, until that succeeds or the daemon stops.

        `on_try` is called before each attempt. Raises errors that are not transient.
        """
        self.lost.clear()
        backoff = Backoff(*RECONNECT_SECONDS)
        while not self.connected and not stopping.is_set():
            on_try()
            try:
                await self.connect()
            except Exception as error:
                if not is_transient(error):
                    raise
                pause = backoff.next()
                log.warning("the listener cannot connect, will try again", **log_fields(error), pause_seconds=pause)
                await wait_for(stopping, pause)
            else:
                self.reconnects += 1

    async def close(self) -> None:
        """Cut the connection, without waiting for the server."""
        connection, self._connection, self.gate_held = self._connection, None, False
        self.match_gate_held = False
        if connection is not None:
            connection.terminate()
            self._lose(connection)

    async def take_gate(self) -> bool:
        """Take the gate; True if writers notify from now on, False while a writer or another broker holds it.

        It is not taken while the notification queue fills up: a full queue fails the commits of writers.
        """
        if node_of(self._database) not in {None, self._node}:  # the bucket was moved, and its mail comes there
            await self.close()
        elif self.queue_usage <= MAX_QUEUE_USAGE and not self.gate_held:
            self.gate_held = bool(await self._fetch("try_gate"))
        if self.queue_usage > MAX_QUEUE_USAGE:  # it may have filled up since
            await self.release_gate()
        return self.gate_held

    async def release_gate(self) -> None:
        """Give the gate up: an awake broker needs no notifications."""
        if self.gate_held:
            self.gate_held = False
            await self._fetch("release_gate")

    async def take_match_gate(self) -> None:
        """Take the gate of signals, unless a sender or another broker holds it: `match_gate_held`."""
        if self.queue_usage > MAX_QUEUE_USAGE:
            await self.release_match_gate()
        elif self.connected and not self.match_gate_held:
            self.match_gate_held = bool(await self._fetch("try_match_gate"))

    async def release_match_gate(self) -> None:
        """Give the gate of signals up: senders need not notify while signals are matched."""
        if self.match_gate_held:
            self.match_gate_held = False
            await self._fetch("release_match_gate")

    async def probe(self, pool: asyncpg.Pool[Any]) -> None:
        """Notify ourselves through another connection: a dead listener does not hear it."""
        async with borrowed(pool, CALL_SECONDS) as connection:
            await connection.execute(sql("probe_listener"), self._name)

    async def check_queue(self, pool: asyncpg.Pool[Any]) -> None:
        """Measure how full the notification queue is (1 is full); asking also frees what all listeners have read."""
        async with borrowed(pool, CALL_SECONDS) as connection:
            self.queue_usage = float(await connection.fetchval(sql("notification_queue_usage")))
        if self.queue_usage > MAX_QUEUE_USAGE and self.gate_held:
            self.notified.set()  # without the gate nobody notifies
            await self.release_gate()

    def deaf_since(self, probed_at: float) -> bool:
        """Whether nothing was heard since a probe at `probed_at` (monotonic seconds)."""
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
        """The connection is gone: wake the sleeper, because no notification arrives any more."""
        self.lost.set()
        self.notified.set()
        self.match_requested.set()

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self.heard_at = time.monotonic()
        if not str(payload).startswith("probe:") and not self.on_mail():
            self.notified.set()

    def _hear_match(self, *_notification: object) -> None:
        self.heard_at = time.monotonic()
        self.match_requested.set()

    def _hear_timer(self, *_notification: object) -> None:
        self.heard_at = time.monotonic()
        self._wake_timers()

    def _hear_throttle(self, *_notification: object) -> None:
        self.heard_at = time.monotonic()
        self._on_throttle()

    def _wake_timers(self) -> None:
        for wake in self._on_timer:
            wake()
