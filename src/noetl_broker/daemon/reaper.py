"""Ends what is overdue: leases and timeouts. Corrects due times after the server's clock stepped back."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from noetl_broker.daemon.background import attempt
from noetl_broker.daemon.metrics.registry import CLOCK_STEPS, REAPED, SWEPT_SLOTS, TURNS
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.store.connect.connection import ANSWER_SECONDS, Pool, borrowed
from noetl_broker.store.queries import sql

log = structlog.get_logger(__name__)

MAX_ROWS: Final = 1000
MAX_PULLED_BACK: Final = 10_000
MARGIN_SECONDS: Final = 5.0  # a partial scan begins so long before the scan before it
FULL_SCAN_FACTOR: Final = 1000  # a full scan of the leases takes at most one thousandth of the time


async def keep_reaping(reaper: Reaper, clock: ClockCheck, *, seconds: float, idle_seconds: float) -> None:
    """Run both at these intervals, for ever; at intervals of `idle_seconds` while the reaper is idle."""
    while True:
        began = time.monotonic()
        await attempt(clock.run(), on_fault="the server's clock could not be read, will try again")
        await attempt(reaper.run(), on_fault="the reaper failed, will try again")
        await asyncio.sleep(seconds)
        while reaper.is_idle and time.monotonic() - began < idle_seconds:  # noqa: ASYNC110 - a turn sets no event
            await asyncio.sleep(seconds)


class ClockCheck:
    """Checks whether the server's clock stepped back, and then pulls back due times: `noetl.mind_clock`."""

    def __init__(self, pool: Pool, metrics: MetricValues) -> None:
        """The first check includes the jobs: they may be older than the last time that a broker recorded."""
        self._pool = pool
        self._metrics = metrics
        self._is_first = True

    async def run(self) -> None:
        """Check once. Of many rows only a part is pulled back; later checks take the rest."""
        is_first, self._is_first = self._is_first, False  # even after a fault: a check of all jobs may be too slow
        async with borrowed(self._pool, ANSWER_SECONDS) as connection:
            row = await connection.fetchrow(sql("check_clock"), MAX_PULLED_BACK, is_first)
        if row is None:
            return
        if row["stepped_seconds"] is not None:
            self._metrics.add(CLOCK_STEPS, row["stepped_seconds"])
            log.error(
                "the clock of the database server has stepped back, due times are moved back",
                seconds=round(row["stepped_seconds"], 3),
                hint="find out what sets it: NTP slews, a person or another server steps",
            )
        if row["pulled"]:
            self._metrics.add(REAPED, row["pulled"], "pulled_back")
            log.info("pulled back", rows=row["pulled"])


class Reaper:
    """Handles due rows, and decides whether to scan all leases or only those that ran out since the last scan.

    While an old snapshot is open, dead rows make a full scan slow. Then most scans are partial. A partial scan misses
    leases that were locked or committed late; the next full scan finds them.
    """

    def __init__(
        self,
        pool: Pool,
        metrics: MetricValues,
        *,
        max_lost_leases: int,
        missing_event_seconds: float,
        foreign_lease_grace_seconds: float,
        beside_noetl: bool = False,
    ) -> None:
        """The first scan is a full one."""
        self._pool = pool
        self._metrics = metrics
        self._max_lost_leases = max_lost_leases
        self._missing_event_seconds = missing_event_seconds
        self._foreign_grace_seconds = foreign_lease_grace_seconds
        self._beside_noetl = beside_noetl
        self._scanned_at = self._full_scan_at = 0.0  # monotonic seconds
        self._idle_since: int | None = None  # the turns that were taken when a scan found nothing to watch

    @property
    def is_idle(self) -> bool:
        """Whether the last scan found no execution and no lease to watch, and this process took no turn since."""
        return self._idle_since == self._metrics.total(TURNS)

    async def run(self) -> dict[str, int]:
        """Handle what is due; returns the number of rows by kind."""
        turns, self._idle_since = self._metrics.total(TURNS), None
        async with borrowed(self._pool, ANSWER_SECONDS) as connection:
            began = time.monotonic()
            since = began - self._scanned_at + MARGIN_SECONDS if began < self._full_scan_at else None
            limits = MAX_ROWS, self._max_lost_leases, since, self._foreign_grace_seconds
            done: dict[str, int] = dict(await connection.fetchrow(sql("reap"), *limits) or {})
            is_idle = done.pop("is_idle", False) and not self._beside_noetl
            took = time.monotonic() - began
            slots = dict(await connection.fetchrow(sql("sweep_slots"), MAX_ROWS) or {})
            if self._beside_noetl:
                # in a transaction of its own: the locks of the first one are free again
                done["from_rows"] = await connection.fetchval(
                    sql("reap_ended_jobs"), MAX_ROWS, self._missing_event_seconds
                )
        self._count_slots(slots)
        self._scanned_at = began
        if since is None:
            self._full_scan_at = began + took * FULL_SCAN_FACTOR
        if any(done.values()):
            self._full_scan_at = 0.0  # there may be more
            is_idle = False
            for kind, count in done.items():
                self._metrics.add(REAPED, count or 0, kind)
            log.info("reaped", **done)
        if is_idle:
            self._idle_since = turns
        return done

    def _count_slots(self, slots: dict[str, int]) -> None:
        """Count and log executions that only this sweep admitted."""
        if slots.get("swept"):
            self._metrics.add(SWEPT_SLOTS, slots["swept"])
        if any(slots.values()):
            log.info("swept slots", **slots)
