"""How the daemon sleeps when the inbox is empty: behind the gate, until a writer rings the bell or a sweep is due."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from noetl_broker.daemon.low_water import LowWater
from noetl_broker.store.bell import Bell
from noetl_broker.store.pool import CALL_SECONDS, Pool, lent
from noetl_broker.store.queries import sql

POLL_SECONDS = (0.002, 0.1)
SHORT_SECONDS = 0.003  # of work, for which the gate is kept: to let it go and take it again costs as much as a mail


async def look(pool: Pool, low_water: LowWater, *, anyway: bool = False) -> bool:
    """Whether any mail is unread, ours or another broker's; from the beginning where that is due, or `anyway`."""
    start = 0 if anyway or not low_water.seconds_left else low_water.near
    async with lent(pool, CALL_SECONDS) as connection:
        began = time.monotonic()
        first = await connection.fetchval(sql("first_mail"), start)
    low_water.looked(first, start, time.monotonic() - began)
    return first is not None


class Sleeper:
    """How the daemon sleeps: behind the gate where it can have it, otherwise looking again after a short pause."""

    def __init__(
        self,
        bell: Bell,
        pool: Pool,
        stopping: asyncio.Event,
        low_water: LowWater,
        *,
        notify: str,
        sweep_seconds: float,
    ) -> None:
        """Awake."""
        self._bell = bell
        self._pool = pool
        self._stopping = stopping
        self._low_water = low_water
        self._notify = notify
        self._sweep_seconds = sweep_seconds
        self.swept = False  # the last sleep ended by itself, though whoever wrote mail would have rung
        self._letting_go: asyncio.Task[None] | None = None
        self._taking: asyncio.Task[bool] | None = None
        self._back = asyncio.Event()  # the work is done
        self._poll = POLL_SECONDS[0]
        self._woken = False  # by the bell, from the sleep before this one

    async def sleep(self, *, worked: bool) -> None:
        """Return when there may be mail, or the daemon stops, which rings too. Raises where the connection is gone."""
        if worked:
            self._poll = POLL_SECONDS[0]
        elif self._woken:
            # Anybody who can log in can ring. Whoever rings in vain is heard ever less often, and mail waits no longer
            # than the longest pause for it.
            await self._pause(self._stopping)
        self._woken = self.swept = False
        if not self._bell.connected:
            raise ConnectionError("the listener's connection is closed")
        if self._notify == "off" or not await self._take_gate():
            if not worked:  # else more may have come meanwhile
                await self._pause(self._bell.rung)
            return
        # From here on every writer rings; what was written before stands in the inbox.
        if not await look(self._pool, self._low_water):
            seconds = min(self._sweep_seconds, self._low_water.seconds_left or self._sweep_seconds)
            await self._wait(seconds, self._bell.rung)
            self._woken = self._bell.rung.is_set()
            self.swept = not self._woken
        elif not worked:
            await self._pause(self._bell.rung)  # mail that another broker holds
        if self._notify == "gated":
            self._back.clear()
            self._letting_go = asyncio.create_task(self._let_go())

    async def _take_gate(self) -> bool:
        """Whether writers ring from now on; where the bell has not answered yet, nobody may count on it."""
        if self._letting_go is not None:
            self._back.set()
            if not await _answered(self._letting_go):
                return False  # a gate let go only after it seems to be had would be slept behind in vain
            self._letting_go = None
        if self._taking is None:
            self._taking = asyncio.create_task(self._bell.take_gate())
            self._taking.add_done_callback(_look_at_fault)
        if not await _answered(self._taking):
            return False
        taken, self._taking = self._taking, None
        return taken.result() and self._bell.gate_held  # it may have connected anew since it answered

    async def _let_go(self) -> None:
        """Beside the work, unless it is short: writers may ring until then.

        The next sleep sees whether the connection is lost.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._back.wait(), SHORT_SECONDS)
            return
        with contextlib.suppress(Exception):
            await self._bell.release_gate()

    async def _pause(self, signal: asyncio.Event) -> None:
        """A pause until the signal, longer each time that it was in vain."""
        await self._wait(self._poll, signal)
        self._poll = min(self._poll * 2, POLL_SECONDS[1])

    async def _wait(self, seconds: float, signal: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(signal.wait(), seconds)


async def _answered(asked: asyncio.Task[Any]) -> bool:
    """Whether the bell has answered by the time at which mail must be looked for, whatever it says.

    Its answers come after all rings before them, and others may ring faster than it can hear.
    """
    await asyncio.wait([asked], timeout=POLL_SECONDS[1])
    return asked.done()


def _look_at_fault(asked: asyncio.Task[Any]) -> None:
    """A daemon that stops asks for the answer no more; without this its fault would be told by asyncio."""
    if not asked.cancelled():
        asked.exception()
