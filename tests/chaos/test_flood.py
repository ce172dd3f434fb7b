"""A flood of notifications, as fast as the server can send them, does not stop the daemon.

tests/daemon/lanes/test_needless_notifications.py counts needless looks. Here we measure CPU time.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.brokers import broken_invariants, complete_jobs, start, value
from tests.chaos.daemons import START_SECONDS, daemon, processor_seconds
from tests.chaos.sampling import LONG
from tests.chaos.under_load import Tried, prepare, until
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

EXECUTIONS = 100 if LONG else 3  # one after the other, during the flood
RINGS = 10_000  # in one transaction, each with another text: equal ones are sent once
RING = "select pg_notify('noetl_event', gen_random_uuid()::text) from generate_series(1, $1::int)"
SWEEP_SECONDS, PATIENCE_SECONDS = 60, 55
QUEUED = "select exists (select from noetl.queue where status = 'queued')"
LISTENS = """
    select exists (
      select
      from pg_stat_activity
      where application_name like 'noetl-broker bell%' and datname = current_database()
    )"""
ENDED = "select status = 'COMPLETED' from noetl.execution where execution_id = $1"


async def test_a_flood_of_notifications_delays_no_execution(database: Database, tried: Tried) -> None:
    """Executions start and end during it, sooner than the next sweep would find them."""
    await prepare(database)
    notifications = 0
    stopping = asyncio.Event()

    async def notify() -> None:
        nonlocal notifications
        async with session(database) as own:
            while not stopping.is_set():
                await own.execute(RING, RINGS)
                notifications += RINGS

    async with daemon(database, sweep_seconds=f"{SWEEP_SECONDS}") as pid:
        await until(database, LISTENS, patience=START_SECONDS)
        flood = asyncio.create_task(notify())
        began, used = time.monotonic(), processor_seconds(pid)
        for _ in range(EXECUTIONS):
            (execution_id,) = await start(database)
            await until(database, QUEUED, patience=PATIENCE_SECONDS)
            await complete_jobs(database)
            await until(database, ENDED, execution_id, patience=PATIENCE_SECONDS)
        took, used = time.monotonic() - began, processor_seconds(pid) - used
        stopping.set()
        await flood
    assert notifications > 0
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == EXECUTIONS
    assert await broken_invariants(database) == {}
    tried(
        f"{notifications / took:,.0f} needless notifications a second",
        f"{EXECUTIONS} executions in {took:.1f} s meanwhile; the daemon used {used / took:.0%} of a processor",
    )
