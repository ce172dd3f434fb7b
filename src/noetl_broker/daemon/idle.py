"""How the daemon waits while the inbox is empty: until a writer notifies it, or the next sweep is due."""

from __future__ import annotations

import asyncio
import contextlib
import time

from noetl_broker.daemon.claim_cursor import ClaimCursor
from noetl_broker.growing_pauses import Backoff
from noetl_broker.store.connect.connection import CALL_SECONDS, Pool, borrowed
from noetl_broker.store.connect.listener import Listener
from noetl_broker.store.queries import sql
from noetl_broker.tasks import wait_for

POLL_SECONDS = (0.002, 0.1)
HELD_SECONDS = 0.02  # the least pause before the next poll for mail that another broker holds
SHORT_WORK_SECONDS = 0.006  # the gate is kept for shorter work: to release and take it costs as much as one mail


async def has_mail(pool: Pool, cursor: ClaimCursor, *, full_scan: bool = False) -> bool:
    """Whether the inbox holds mail, also mail that another broker holds. Scans all of it when that is due."""
    start = 0 if full_scan or not cursor.seconds_to_full_scan else cursor.near
    async with borrowed(pool, CALL_SECONDS) as connection:
        began = time.monotonic()
        first = await connection.fetchval(sql("first_mail"), start)
    cursor.scanned(first, start, time.monotonic() - began)
    return first is not None


class Sleeper:
    """Waits behind the gate if it can be taken, and polls otherwise.

    The listener's own connection takes the gate, so its answer comes after all earlier notifications. Others may
    notify faster than it can read, so the wait for the gate is at most one polling interval.
    """

    def __init__(
        self,
        listener: Listener,
        pool: Pool,
        stopping: asyncio.Event,
        cursor: ClaimCursor,
        *,
        notify: str,
        sweep_seconds: float,
    ) -> None:
        """Awake."""
        self._listener = listener
        self._pool = pool
        self._stopping = stopping
        self._cursor = cursor
        self._notify = notify
        self._sweep_seconds = sweep_seconds
        self.swept = False  # the last sleep ended because a sweep was due, and not by a notification
        self._taking: asyncio.Task[bool] | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()  # there is no work
        self._poll = Backoff(*POLL_SECONDS)
        self._was_notified = False  # the sleep before this one ended by a notification

    async def sleep(self, *, worked: bool) -> None:
        """Return when there may be mail, or when the daemon stops. `worked`: turns were taken since the last sleep."""
        self.swept = False
        if worked:
            self._poll.reset()
            if self._listener.notified.is_set():
                return
        elif self._was_notified:
            # Anybody who can log in can notify. After a needless notification, pause before the next one.
            await self._pause(self._stopping)
        self._idle.set()
        try:
            await self._until_notified(worked=worked)
        finally:
            self._was_notified = self._listener.notified.is_set()
            self._idle.clear()
            if self._notify == "gated" and self._listener.gate_held:
                self._releasing = asyncio.create_task(self._release())

    async def _until_notified(self, *, worked: bool) -> None:
        if not self._listener.connected or self._notify == "off" or not await self._has_gate():
            if not worked:  # after work, more mail may have come meanwhile
                await self._pause(self._listener.notified)
            return
        # From here on every writer notifies, and what was written before is in the inbox.
        if not await has_mail(self._pool, self._cursor):
            seconds = min(self._sweep_seconds, self._cursor.seconds_to_full_scan or self._sweep_seconds)
            await wait_for(self._listener.notified, seconds)
            self.swept = not self._listener.notified.is_set()
        elif not worked:
            await self._pause(self._listener.notified, least=HELD_SECONDS)

    async def _has_gate(self) -> bool:
        """Whether writers notify from now on, if that is known in time."""
        if self._taking is None or self._taking.done():
            self._taking = asyncio.create_task(self._take_gate())
            self._taking.add_done_callback(_retrieve_fault)
        await asyncio.wait([self._taking], timeout=POLL_SECONDS[1])
        return self._taking.done() and self._taking.result()

    async def _take_gate(self) -> bool:
        if self._releasing is not None:
            await self._releasing  # otherwise it might release the gate that is taken here
        taken = await self._listener.take_gate()
        if self._notify == "gated" and not self._idle.is_set():  # too late: there is work again
            await self._release()
        return taken and self._listener.gate_held

    async def _release(self) -> None:
        """Release the gate beside the work, unless the work is short.

        A fault is not raised here: the next sleep sees that the connection is lost.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), SHORT_WORK_SECONDS)
            return
        with contextlib.suppress(Exception):
            await self._listener.release_gate()

    async def _pause(self, signal: asyncio.Event, least: float = 0.0) -> None:
        """Wait for the signal; each pause in a row is longer."""
        await wait_for(signal, max(self._poll.next(), least))


def _retrieve_fault(task: asyncio.Task[bool]) -> None:
    """Keep asyncio from logging the fault of a task that nobody awaits any more."""
    if not task.cancelled():
        task.exception()
