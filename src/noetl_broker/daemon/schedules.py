"""Starts the executions of schedules that are due, beside any number of brokers that do the same."""

from __future__ import annotations

from datetime import datetime

import structlog

from noetl_broker.broker.holds.schedules import utc_text
from noetl_broker.daemon.metrics.registry import SCHEDULE_LATENESS, SCHEDULE_MOMENTS
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.timers import Due
from noetl_broker.store.admin.schedules import Moved, move_due_schedules
from noetl_broker.store.connect.connection import ANSWER_SECONDS, Pool, borrowed
from noetl_broker.store.queries import sql

log = structlog.get_logger(__name__)

MAX_ROWS = 50  # schedules that one transaction moves


class Mover:
    """Moves what is due."""

    def __init__(self, pool: Pool, metrics: MetricValues) -> None:
        """Nothing moved yet."""
        self._pool = pool
        self._metrics = metrics
        # The database's clock at the first poll after the last fault, or after a step back of that clock.
        self._watched_since: datetime | None = None

    async def fire(self) -> Due:
        """Move the schedules that are due, a bounded number.

        What becomes due while this broker polls without a fault is not missed, however late it polls.
        """
        try:
            async with borrowed(self._pool, ANSWER_SECONDS) as connection:
                now: datetime = await connection.fetchval(sql("clock"))
                self._watched_since = min(self._watched_since or now, now)
                moved = await move_due_schedules(connection, MAX_ROWS, watched_since=self._watched_since)
                seconds: float | None = await connection.fetchval(sql("seconds_to_schedule"))
        except Exception:
            self._watched_since = None
            raise
        for each in moved:
            _report(each, self._metrics)
        return Due(len(moved), seconds)


def _report(moved: Moved, metrics: MetricValues) -> None:
    """Count and log what became of a schedule."""
    move = moved.move
    if moved.fault is not None:
        metrics.add(SCHEDULE_MOMENTS, 1, "failed")
        log.warning("a schedule has a fault", schedule=moved.name, reason=moved.fault)
    if move is None:
        return
    if moved.execution_id is not None:
        metrics.add(SCHEDULE_MOMENTS, 1, "started" if moved.is_new else "existing")
        metrics.observe(SCHEDULE_LATENESS, moved.late_seconds)
        log.info(
            "schedule started",
            schedule=moved.name,
            execution_id=moved.execution_id,
            moment=utc_text(move.start) if move.start else None,
        )
    if move.skipped:
        metrics.add(SCHEDULE_MOMENTS, move.skipped, "skipped")
        if not move.is_partial:  # after a long outage there are thousands of moves
            log.info("schedule skipped moments", schedule=moved.name, last=utc_text(move.since_at))
    if move.pulled_back:
        metrics.add(SCHEDULE_MOMENTS, 1, "pulled_back")
        log.warning(
            "the clock stepped back, a schedule is moved back",
            schedule=moved.name,
            next_at=utc_text(move.next_at) if move.next_at else None,
        )
