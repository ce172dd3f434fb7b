"""How the daemon sleeps when the inbox is empty: behind the gate, until a writer rings the bell or a sweep is due."""

from __future__ import annotations

import asyncio
import contextlib
import time

from noetl_broker.daemon.low_water import LowWater
from noetl_broker.store.bell import Bell
from noetl_broker.store.pool import CALL_SECONDS, Pool, lent
from noetl_broker.store.queries import sql

POLL_SECONDS = (0.002, 0.1)
HELD_SECONDS = 0.02  # until mail that another broker holds is looked for again, at least: whoever writes more rings
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
    """How the daemon sleeps: behind the gate where it can have it, otherwise looking again after a short pause.

    Whether it has the gate the bell must say, whose answers come after all rings before them. Others may ring faster
    than it can hear, so nobody waits for it for longer than for the next look.
    """

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
        self._taking: asyncio.Task[bool] | None = None
        self._letting_go: asyncio.Task[None] | None = None
        self._back = asyncio.Event()  # the work is done
        self._poll = POLL_SECONDS[0]
        self._woken = False  # by the bell, from the sleep before this one

    async def sleep(self, *, worked: bool) -> None:
        """Return when there may be mail, or the daemon stops, which rings too."""
        if worked:
            self._poll = POLL_SECONDS[0]
        elif self._woken:
            # Anybody who can log in can ring. Whoever rings in vain is heard ever less often, and mail waits no longer
            # than the longest pause for it.
            await self._pause(self._stopping)
        self.swept = False
        self._back.set()
        try:
            await self._until_rung(worked=worked)
        finally:
            self._woken = self._bell.rung.is_set()
            self._back.clear()
            if self._notify == "gated" and self._bell.gate_held:
                self._letting_go = asyncio.create_task(self._let_go())

    async def _until_rung(self, *, worked: bool) -> None:
        if not self._bell.connected or self._notify == "off" or not await self._has_gate():
            if not worked:  # else more may have come meanwhile
                await self._pause(self._bell.rung)
            return
        # From here on every writer rings; what was written before stands in the inbox.
        if not await look(self._pool, self._low_water):
            seconds = min(self._sweep_seconds, self._low_water.seconds_left or self._sweep_seconds)
            await self._wait(seconds, self._bell.rung)
            self.swept = not self._bell.rung.is_set()
        elif not worked:
            await self._pause(self._bell.rung, least=HELD_SECONDS)

    async def _has_gate(self) -> bool:
        """Whether writers ring from now on, as far as the bell says so in time."""
        if self._taking is None or self._taking.done():
            self._taking = asyncio.create_task(self._take_gate())
            self._taking.add_done_callback(_look_at_fault)
        await asyncio.wait([self._taking], timeout=POLL_SECONDS[1])
        return self._taking.done() and self._taking.result()

    async def _take_gate(self) -> bool:
        if self._letting_go is not None:
            await self._letting_go  # a gate let go only after it seems to be had would be slept behind in vain
        taken = await self._bell.take_gate()
        if self._notify == "gated" and not self._back.is_set():  # too late: there is work again
            await self._let_go()
        return taken and self._bell.gate_held

    async def _let_go(self) -> None:
        """Beside the work, unless it is short: writers may ring until then.

        The next sleep sees whether the connection is lost.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._back.wait(), SHORT_SECONDS)
            return
        with contextlib.suppress(Exception):
            await self._bell.release_gate()

    async def _pause(self, signal: asyncio.Event, least: float = 0.0) -> None:
        """A pause until the signal, longer each time that it was in vain."""
        await self._wait(max(self._poll, least), signal)
        self._poll = min(self._poll * 2, POLL_SECONDS[1])

    async def _wait(self, seconds: float, signal: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(signal.wait(), seconds)


def _look_at_fault(asked: asyncio.Task[bool]) -> None:
    """Who stops, or comes too late, asks for no answer; without this its fault would be told by asyncio."""
    if not asked.cancelled():
        asked.exception()
