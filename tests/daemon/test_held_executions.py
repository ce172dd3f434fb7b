"""Executions of which somebody else's transaction holds a row: their mail waits, all other mail is decided on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from noetl_broker import logs
from noetl_broker.daemon import apart, lane
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
    """What takes seconds takes less, and what lasts for them lasts."""
    monkeypatch.setitem(pool.SESSION, "lock_timeout", "500ms")
    monkeypatch.setattr(apart, "LEAVE_SECONDS", 1.0)
    monkeypatch.setattr(apart, "LASTS_SECONDS", 0.5)


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


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What lanes log is kept from where it is below an error."""
    logs.configure(level="info", form="console")
    for module in (apart, lane):
        monkeypatch.setattr(module, "log", structlog.get_logger("test"))
    yield
    logs.configure(level="error", form="console")


@pytest.mark.usefixtures("talkative")
async def test_a_row_that_is_held_for_a_moment_makes_no_warning(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a NoETL server holds rows of each execution that it starts, for as long as it is busy."""
    monkeypatch.setattr(apart, "LASTS_SECONDS", 30.0)
    await register(database, STEP)
    with capture_logs() as lines:
        async with running(database, lanes=1) as service:
            executions = await start(database, count=2)
            await until(database, QUEUED, 2)
            async with held(database, executions[:1]):
                await complete_jobs(database)
                await until(database, COMPLETED, 1)
                assert (service.counters.faults["55P03"], service.trouble) == (1, None)
            await until(database, COMPLETED, 2)
    assert {line["log_level"] for line in lines} == {"info"}
    assert await broken_invariants(database) == {}
