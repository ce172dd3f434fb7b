"""Sums the executions of each hour that is over, for charts. It runs beside the turns, in short transactions."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from noetl_broker.daemon.background import attempt
from noetl_broker.store.admin.figures import delete_old_figures, sum_due_hours
from noetl_broker.store.connect.connection import ANSWER_SECONDS, Pool, borrowed

PAUSE_SECONDS: Final = 60.0
DELETE_SECONDS: Final = 6 * 3600.0
MOST_HOURS: Final = 24  # of one pass; the first one of an old database has many to do


async def keep_figures(pool: Pool) -> None:
    """Every minute, sum what is due. Of several brokers, one does it at a time."""
    deleted_at = -DELETE_SECONDS
    while True:
        await asyncio.sleep(PAUSE_SECONDS)
        await attempt(_sum(pool), on_fault="figures could not be summed, will try again")
        if time.monotonic() - deleted_at > DELETE_SECONDS:
            deleted_at = time.monotonic()
            await attempt(_delete(pool), on_fault="old figures could not be deleted, will try again")


async def _sum(pool: Pool) -> None:
    async with borrowed(pool, ANSWER_SECONDS) as connection:
        await sum_due_hours(connection, most=MOST_HOURS)


async def _delete(pool: Pool) -> None:
    async with borrowed(pool, ANSWER_SECONDS) as connection:
        await delete_old_figures(connection)
