"""What time alone brings about: leases that ran out, actions and executions past their time, jobs without a word."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from noetl_broker.daemon.chores import tell_fault_of_chore
from noetl_broker.daemon.counters import Counters
from noetl_broker.store.pool import ANSWER_SECONDS, Pool, lent
from noetl_broker.store.queries import sql

log = structlog.get_logger(__name__)

MOST_ROWS: Final = 1000
MARGIN_SECONDS: Final = 5.0
PAUSE_FACTOR: Final = 1000  # times what a look at all leases took


async def keep_reaping(
    pool: Pool, counters: Counters, *, seconds: float, max_lost_leases: int, missing_event_seconds: float
) -> None:
    """Look every so many seconds; never ends.

    While somebody holds an old snapshot, to look at all leases takes ever longer: then most looks see those alone that
    ran out since the look before, and a bit earlier. What ran out before that was seen then, unless another
    session held it, or its worker committed late.
    """
    reaper = Reaper(pool, max_lost_leases=max_lost_leases, missing_event_seconds=missing_event_seconds)
    while True:
        try:
            done = await reaper.look()
            if any(done.values()):
                counters.tell_reaped(done.items())
                log.info("reaped", **done)
        except Exception as error:  # noqa: BLE001 - a chore never ends the daemon
            tell_fault_of_chore("the reaper failed, will try again", error)
        await asyncio.sleep(seconds)


class Reaper:
    """One look after another, with a memory of what the last one at everything took."""

    def __init__(self, pool: Pool, *, max_lost_leases: int, missing_event_seconds: float) -> None:
        """The first look is one at everything."""
        self._pool = pool
        self._max_lost_leases = max_lost_leases
        self._missing_event_seconds = missing_event_seconds
        self._looked_at = self._due = 0.0  # monotonic seconds

    async def look(self) -> dict[str, int]:
        """See to what is due; how many rows of each kind there were."""
        async with lent(self._pool, ANSWER_SECONDS) as connection:
            began = time.monotonic()
            lately = began - self._looked_at + MARGIN_SECONDS if began < self._due else None
            row = await connection.fetchrow(sql("reap"), MOST_ROWS, self._max_lost_leases, lately)
            took = time.monotonic() - began
            from_rows = await connection.fetchval(sql("reap_ended_jobs"), MOST_ROWS, self._missing_event_seconds)
        self._looked_at = began
        if lately is None:
            self._due = began + took * PAUSE_FACTOR
        done = {**dict(row or {}), "from_rows": from_rows}
        if any(done.values()):
            self._due = 0.0  # there may be more
        return done
