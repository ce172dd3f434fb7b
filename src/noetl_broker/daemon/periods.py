"""Makes the partitions of the periods to come, so that no execution has to live in the default partition."""

from __future__ import annotations

import asyncio

import structlog

from noetl_broker.daemon.chores import tell_fault_of_chore
from noetl_broker.store.archive import add_partition
from noetl_broker.store.pool import ANSWER_SECONDS, Pool, lent

log = structlog.get_logger(__name__)

LOOK_SECONDS = 3600.0
# After a fault: a database that was away, a lock that was not had. Everybody waits behind whoever waits for it, and a
# long reader (a dump) may keep it for hours; there is time, because partitions are made a whole period ahead.
AGAIN_SECONDS = 60.0


async def keep_periods(pool: Pool, period_days: int) -> None:
    """Look every hour, and make what is missing up to one period ahead; whoever comes first makes it for all."""
    while True:
        pause = LOOK_SECONDS
        try:
            async with lent(pool, ANSWER_SECONDS) as connection:
                while (name := await add_partition(connection, period_days)) is not None:
                    log.info("made a partition", partition=name)
        except Exception as error:  # noqa: BLE001 - a chore never ends the daemon
            pause = AGAIN_SECONDS
            tell_fault_of_chore("partitions could not be made, will try again", error)
        await asyncio.sleep(pause)
