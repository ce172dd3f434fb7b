"""Whoever can log in can ring the bell; who rings in vain costs the daemon little, and keeps nobody's mail waiting."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.brokers import complete_jobs, register, running, start, until_ended
from tests.postgres import Database
from tests.sessions import Session, session

RINGS = 500
ONE_STEP = """
workflow:
- {step: start, next: a}
- {step: a, type: noop, next: end}
- {step: end}
"""


@pytest.mark.parametrize("gate", ["ours", "another's", "off"])
async def test_rings_in_vain_are_looked_after_ever_less_often(database: Database, gate: str) -> None:
    """Between two rings there is time for a look, but far from each ring is worth one."""
    notify = "off" if gate == "off" else "gated"
    async with session(database) as other, session(database) as own:
        if gate == "another's":
            await other.execute("select pg_advisory_lock(1852794228, 1)")
        await amid_rings(database, own, notify)


async def amid_rings(database: Database, own: Session[Any], notify: str) -> None:
    """Ring far more often than is worth a look."""
    async with running(database, notify=notify) as service:
        before, began = service.counters.drains, time.monotonic()
        for ring in range(RINGS):
            await own.execute("select pg_notify('noetl_event', $1)", str(ring))
            for _ in range(40):
                await own.execute("select 1")
        drains, seconds = service.counters.drains - before, time.monotonic() - began
    assert 0 < drains < RINGS / 5 + 10 * seconds


async def test_an_execution_goes_on_amid_a_flood_of_rings(database: Database) -> None:
    """A hundred thousand of them are rung in one go, and junk on the workers' channel too."""
    await register(database, ONE_STEP)
    async with running(database), session(database) as own:
        await own.execute("select pg_notify('noetl_event', n::text) from generate_series(1, 100000) n")
        await own.execute("select pg_notify('noetl_job', n::text) from generate_series(1, 10000) n")
        await start(database)
        await until_ended(database)
        assert await complete_jobs(database) == 0
