"""Somebody rings the bell as fast as the server can, and the daemon's work goes on.

How seldom it looks for rings in vain is held by tests/daemon/test_junk_rings.py; here its share of a processor is told.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.brokers import broken_invariants, complete_jobs, start, value
from tests.chaos.daemons import daemon, processor_seconds
from tests.chaos.extent import LONG
from tests.chaos.under_load import Tried, prepare, until
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

EXECUTIONS = 100 if LONG else 5  # one after the other, while it rings
RINGS = 10_000  # in one transaction; a notification of one text is sent once in it, so each has a text of its own
RING = "select pg_notify('noetl_event', gen_random_uuid()::text) from generate_series(1, $1::int)"
ENDED = "select status = 'COMPLETED' from noetl.execution where execution_id = $1"


async def test_a_flood_of_rings_keeps_nobody_waiting(database: Database, tried: Tried) -> None:
    """Executions start and end amid it; a daemon that waited for its sweep would come later than `until` waits."""
    await prepare(database)
    rung = 0
    stopping = asyncio.Event()

    async def ring() -> None:
        nonlocal rung
        async with session(database) as own:
            while not stopping.is_set():
                await own.execute(RING, RINGS)
                rung += RINGS

    async with daemon(database, sweep_seconds="60") as pid:
        await until(
            database, "select exists (select from pg_stat_activity where application_name like 'noetl-broker%')"
        )
        flood = asyncio.create_task(ring())
        began, used = time.monotonic(), processor_seconds(pid)
        for _ in range(EXECUTIONS):
            (execution_id,) = await start(database)
            await until(database, "select exists (select from noetl.queue where status = 'queued')")
            await complete_jobs(database)
            await until(database, ENDED, execution_id)
        took, used = time.monotonic() - began, processor_seconds(pid) - used
        stopping.set()
        await flood
    assert rung > 0
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == EXECUTIONS
    assert await broken_invariants(database) == {}
    tried(
        f"{rung / took:,.0f} rings a second in vain",
        f"{EXECUTIONS} executions in {took:.1f} s meanwhile; the daemon used {used / took:.0%} of a processor",
    )
