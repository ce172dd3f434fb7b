"""Executions of which somebody else's transaction holds a row: their mail waits, all other mail is decided on."""

from __future__ import annotations

import asyncio

import pytest

from noetl_broker.daemon import apart
from noetl_broker.daemon.service import Service
from noetl_broker.store import pool
from tests.brokers import PATIENCE_SECONDS, broken_invariants, complete_jobs, execute, register, running, start, value
from tests.chaos.under_load import until
from tests.daemon.test_lanes import ENDED, QUEUED, QUICK, STEP, held
from tests.postgres import Database
from tests.sessions import session

COMPLETED = "select $1 = count(*) from noetl.execution where status = 'COMPLETED'"
HOLDS = "another session holds a row of execution"
WAIT_FOR = """
    with leased as (select queue_id, attempts from noetl.lease_jobs('w'))
    select noetl.wait_for_child(queue_id, 'w', attempts, $1), noetl.complete_job(queue_id, 'w', attempts)
    from leased"""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes less."""
    monkeypatch.setitem(pool.SESSION, "lock_timeout", "500ms")
    monkeypatch.setattr(apart, "LEAVE_SECONDS", 1.0)


async def until_told(database: Database, service: Service, trouble: str | None) -> None:
    """Wait until the daemon says this of itself."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (service.trouble is not None) if trouble is None else (trouble not in str(service.trouble)):
            await value(database, "select 1")


@pytest.mark.parametrize("count, busy", [(1, 1), (60, 1), (60, 30)], ids=["alone", "one of many", "many"])
async def test_a_row_that_another_session_holds_keeps_no_other_execution_waiting(
    database: Database, count: int, busy: int
) -> None:
    """As long as it is held a person is told of it; after that its mail is decided on, of which none was set aside."""
    await register(database, STEP)
    await register(database, QUICK, path="quick")
    async with running(database, lanes=1) as service:
        executions = await start(database, count=count)
        await until(database, QUEUED, count)
        async with held(database, executions[:busy]):
            await complete_jobs(database)
            await until(database, COMPLETED, count - busy)
            [quick] = await start(database, "quick")
            await until(database, ENDED, quick)
            await until_told(database, service, HOLDS)
        await until(database, COMPLETED, count + 1)
        await until_told(database, service, None)
    assert await broken_invariants(database) == {}


async def test_a_child_whose_start_is_not_committed_keeps_its_parent_waiting_alone(database: Database) -> None:
    """A worker tells of it beside the transaction that starts it."""
    await register(database, STEP)
    await register(database, QUICK, path="quick")
    async with running(database, lanes=1) as service, session(database) as starter:
        await start(database)
        await until(database, QUEUED, 1)
        await starter.execute("begin")
        child = await starter.fetchval("select noetl.start_execution('quick')")
        await execute(database, WAIT_FOR, child)
        [quick] = await start(database, "quick")
        await until(database, ENDED, quick)
        await until_told(database, service, HOLDS)
        await starter.execute("commit")
        await until(database, COMPLETED, 3)
        await until_told(database, service, None)
    assert await broken_invariants(database) == {}
