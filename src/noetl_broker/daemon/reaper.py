"""What time alone brings about: leases that ran out, actions and executions past their time, jobs without a word."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Final

import structlog

from noetl_broker.daemon.chores import tell_fault_of_chore
from noetl_broker.daemon.counters import Counters
from noetl_broker.store.faults import is_refusal, told
from noetl_broker.store.pool import ANSWER_SECONDS, Connection, Pool, lent
from noetl_broker.store.queries import sql

log = structlog.get_logger(__name__)

MOST_ROWS: Final = 1000
MOST_PULLED: Final = 10_000
MOST_ALONE: Final = 100
PUT_OFF_SECONDS: Final = 60.0
MARGIN_SECONDS: Final = 5.0
PAUSE_FACTOR: Final = 1000  # times what a look at all leases took


async def keep_reaping(reaper: Reaper, clock: Clock, counters: Counters, *, seconds: float) -> None:
    """Look every so many seconds; never ends.

    While somebody holds an old snapshot, to look at all leases takes ever longer: then most looks see those alone that
    ran out since the look before, and a bit earlier. What ran out before that was seen then, unless another
    session held it, or its worker committed late.
    """
    while True:
        try:
            await clock.look()
        except Exception as error:  # noqa: BLE001 - a chore never ends the daemon
            tell_fault_of_chore("the server's clock could not be looked at, will try again", error)
        try:
            done = await reaper.look()
            if any(done.values()):
                counters.tell_reaped(done.items())
                log.info("reaped", **done)
        except Exception as error:  # noqa: BLE001 - a chore never ends the daemon
            tell_fault_of_chore("the reaper failed, will try again", error)
        await asyncio.sleep(seconds)


class Clock:
    """Looks whether the clock of the server has stepped back, and has what was due pulled back: `noetl.mind_clock`."""

    def __init__(self, pool: Pool, counters: Counters) -> None:
        """The first look is at the jobs as well: they may have been written while no broker saw the time."""
        self._pool = pool
        self._counters = counters
        self._is_first = True

    async def look(self) -> None:
        """Look once; of many rows only some are pulled back, the rest by later looks."""
        is_first, self._is_first = self._is_first, False  # where that takes too long, it is not tried again and again
        async with lent(self._pool, ANSWER_SECONDS) as connection:
            row = await connection.fetchrow(sql("mind_clock"), MOST_PULLED, is_first)
        if row is None:
            return
        if row["stepped_seconds"] is not None:
            self._counters.clock_steps += 1
            self._counters.clock_step_seconds += row["stepped_seconds"]
            log.error(
                "the clock of the database server has stepped back, what was due is pulled back",
                seconds=round(row["stepped_seconds"], 3),
                hint="find out what sets it: NTP slews, a person or another server steps",
            )
        if row["pulled"]:
            self._counters.tell_reaped([("pulled_back", row["pulled"])])
            log.info("pulled back", rows=row["pulled"])


class Reaper:
    """One look after another, with a memory of what the last one at everything took, and of what was refused.

    A trigger or a constraint of somebody's may refuse what is written for one row, and with it the whole look. Then
    each row has a transaction of its own, and those that are refused are left out for a while: they stay as they are.
    """

    def __init__(
        self, pool: Pool, *, max_lost_leases: int, missing_event_seconds: float, foreign_lease_grace_seconds: float
    ) -> None:
        """The first look is one at everything."""
        self._pool = pool
        self._max_lost_leases = max_lost_leases
        self._missing_event_seconds = missing_event_seconds
        self._foreign_grace_seconds = foreign_lease_grace_seconds
        self._looked_at = self._due = 0.0  # monotonic seconds
        self._put_off: dict[int, float] = {}  # jobs and executions, and until when

    async def look(self) -> dict[str, int]:
        """See to what is due; how many rows of each kind there were."""
        done = Counter[str]()
        async with lent(self._pool, ANSWER_SECONDS) as connection:
            if self._put_off or not await self._look_at_all(connection, done):
                self._due = 0.0
                await self._look_at_each(connection, done)
        return dict(done)

    async def _look_at_all(self, connection: Connection, done: Counter[str]) -> bool:
        """In one go; false where the database refuses one of them."""
        began = time.monotonic()
        lately = began - self._looked_at + MARGIN_SECONDS if began < self._due else None
        try:
            done.update(await self._reap(connection, lately=lately))
            took = time.monotonic() - began
            done.update(await self._reap_ended_jobs(connection))
        except Exception as error:
            if is_refusal(error):
                return False
            raise
        self._looked_at = began
        if lately is None:
            self._due = began + took * PAUSE_FACTOR
        if any(done.values()):
            self._due = 0.0  # there may be more
        return True

    async def _look_at_each(self, connection: Connection, done: Counter[str]) -> None:
        """One by one, but for those that were refused within the last minute."""
        now = time.monotonic()
        self._put_off = {one: until for one, until in self._put_off.items() if now < until}
        graces = self._missing_event_seconds, self._foreign_grace_seconds
        for row in await connection.fetch(sql("due"), MOST_ALONE, [*self._put_off], *graces):
            if row["id"] in self._put_off:
                continue  # of two kinds
            try:
                done.update(await self._reap(connection, alone=row["id"]))
                done.update(await self._reap_ended_jobs(connection, alone=row["id"]))
            except Exception as error:
                if not is_refusal(error):
                    raise
                self._put_off[row["id"]] = now + PUT_OFF_SECONDS
                where = {name: row[name] for name in ("due", "queue_id", "execution_id", "node_id")}
                why = {**told(error), "because": "a trigger or a constraint on our tables"}
                log.error("the database refuses what is due", **where, **why)  # noqa: TRY400 - a traceback shows the row

    async def _reap(
        self, connection: Connection, *, lately: float | None = None, alone: int | None = None
    ) -> dict[str, int]:
        limits = MOST_ROWS, self._max_lost_leases, lately, alone, self._foreign_grace_seconds
        return dict(await connection.fetchrow(sql("reap"), *limits) or {})

    async def _reap_ended_jobs(self, connection: Connection, *, alone: int | None = None) -> dict[str, int]:
        decided = await connection.fetchval(sql("reap_ended_jobs"), MOST_ROWS, self._missing_event_seconds, alone)
        return {"from_rows": decided}
