"""Fires what is due at its moment, and sleeps until the next moment.

The database's clock decides what is due. A sleeping loop wakes early when its own process or another writes an earlier
moment. A sweep finds what nobody announced.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from noetl_broker.daemon.background import attempt
from noetl_broker.daemon.metrics.registry import TIMER_LATENESS, TIMERS_FIRED
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.growing_pauses import Backoff
from noetl_broker.store.connect.connection import ANSWER_SECONDS, Pool, borrowed
from noetl_broker.store.queries import sql
from noetl_broker.tasks import wait_for

MAX_TIMERS: Final = 1000  # in one transaction
# Somebody who writes an earlier moment announces it only if it is the first of all. While it was written, a moment may
# have been before it that is fired now. So the first polls after a fire are soon.
POLL_SECONDS: Final = 0.04
# While an old snapshot is open, dead rows make a full scan slow.
RECENT_SECONDS: Final = 60.0
SLOW_SECONDS: Final = 0.02  # for a scan, beside
TIMER_SECONDS: Final = 0.0005  # for each timer that it fires
FULL_SCAN_FACTOR: Final = 100
BUSY_SECONDS: Final = (0.002, 0.05)  # before the next poll for rows that another broker fires
FAULT_SECONDS: Final = (0.2, 2.0)


class Due(NamedTuple):
    """What one call has fired: the number, and in how many seconds the next is due (None: there is none)."""

    fired: int
    seconds: float | None


class DueLoop:
    """Calls `fire` whenever something is due. `fire` is one bounded transaction that returns `Due`."""

    def __init__(self, fire: Callable[[], Awaitable[Due]], *, sweep_seconds: float, on_fault: str) -> None:
        """`on_fault` is logged when `fire` raises; it is called again after a pause."""
        self._fire = fire
        self._sweep_seconds = sweep_seconds
        self._on_fault = on_fault
        self._woken = asyncio.Event()
        self._wakes_at = math.inf  # monotonic seconds; the end of the sleep, if it is known
        self._busy = Backoff(*BUSY_SECONDS, jitter=0.5)
        self._polls = Backoff(POLL_SECONDS, sweep_seconds)

    def wake(self, seconds: float = 0.0) -> None:
        """Something may be due in so many seconds: sleep no longer."""
        wakes_at = time.monotonic() + seconds
        if wakes_at < self._wakes_at:
            self._wakes_at = wakes_at
            self._woken.set()

    async def fire_due(self) -> int:
        """Fire until nothing is due; returns the number. Another broker may be firing the rest."""
        total = 0
        while True:
            due = await self._fire()
            total += due.fired
            if not due.fired:
                return total

    async def keep_firing(self) -> None:
        """Fire and sleep, for ever. A fault is logged, and never ends the loop."""
        faults = Backoff(*FAULT_SECONDS)
        while True:
            self._woken.clear()
            self._wakes_at = math.inf
            if await attempt(self._fire_and_plan(), on_fault=self._on_fault):
                faults.reset()
            else:
                self.wake(faults.next())
            await self._sleep()

    async def _fire_and_plan(self) -> None:
        due = await self._fire()
        if due.fired:
            self._polls.reset()
            self._busy.reset()
        seconds = self._polls.next()
        if due.seconds is not None:
            is_due = due.seconds <= 0
            seconds = (0.0 if due.fired else self._busy.next()) if is_due else min(seconds, due.seconds)
        self.wake(seconds)

    async def _sleep(self) -> None:
        while (seconds := self._wakes_at - time.monotonic()) > 0:
            await wait_for(self._woken, seconds)
            self._woken.clear()


class Timers:
    """Turns timers that are due into events: `noetl.fire_timers`."""

    def __init__(
        self, pool: Pool, metrics: MetricValues, *, on_fired: Callable[[], None], always_full: bool = False
    ) -> None:
        """`on_fired` is called when there is new mail. `always_full`: each scan is a full one, however slow."""
        self._pool = pool
        self._metrics = metrics
        self._on_fired = on_fired
        self._always_full = always_full
        self._full_scan_at = 0.0  # monotonic seconds

    async def fire(self) -> Due:
        """Fire at most MAX_TIMERS in one transaction.

        A full scan takes at most a hundredth of the time. Between two full scans, timers that have been due for long
        wait.
        """
        began = time.monotonic()
        since = RECENT_SECONDS if began < self._full_scan_at and not self._always_full else None
        async with borrowed(self._pool, ANSWER_SECONDS) as connection:
            [row] = await connection.fetch(sql("fire_timers"), MAX_TIMERS, since)
        fired: int = row["fired"]
        took = time.monotonic() - began
        if since is None and took > SLOW_SECONDS + fired * TIMER_SECONDS:
            self._full_scan_at = began + took * FULL_SCAN_FACTOR
        if fired:
            self._metrics.add(TIMERS_FIRED, fired)
            self._metrics.observe(TIMER_LATENESS, row["late_seconds"])
            self._on_fired()
        return Due(fired, row["next_seconds"])
