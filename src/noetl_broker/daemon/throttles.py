"""Releases held jobs: slots that were freed and that nobody gave, and slots that a job asks for later."""

from __future__ import annotations

import time
from typing import Final

from noetl_broker.daemon.metrics.registry import JOBS_RELEASED
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.timers import Due
from noetl_broker.store.connect.connection import ANSWER_SECONDS, Connection, Pool, borrowed
from noetl_broker.store.queries import sql

MAX_REQUESTS: Final = 200  # in one transaction
MAX_KEYS: Final = 500  # that one sweep looks at
SWEEP_SECONDS: Final = 10.0


class JobReleaser:
    """Works on requests that are due, and sweeps all keys now and then."""

    def __init__(self, pool: Pool, metrics: MetricValues) -> None:
        """Nothing released yet."""
        self._pool = pool
        self._metrics = metrics
        self._swept_at = time.monotonic()
        self._after: tuple[str | None, str | None] = (None, None)  # the key where the next sweep goes on

    async def fire(self) -> Due:
        """Work on a bounded number of requests."""
        async with borrowed(self._pool, ANSWER_SECONDS) as connection:
            [row] = await connection.fetch(sql("release_requested"), MAX_REQUESTS)
            self._metrics.add(JOBS_RELEASED, row["released"], "request")
            if time.monotonic() - self._swept_at > SWEEP_SECONDS:
                await self._sweep(connection)
        return Due(row["worked_on"], row["next_seconds"])

    async def _sweep(self, connection: Connection) -> None:
        [row] = await connection.fetch(sql("sweep_throttles"), MAX_KEYS, *self._after)
        self._metrics.add(JOBS_RELEASED, row["released"], "sweep")
        self._after = row["last_name"], row["last_key"]
        if row["last_name"] is None:  # that was the last key
            self._after, self._swept_at = (None, None), time.monotonic()
