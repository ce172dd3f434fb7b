"""Another session has locked a row of an execution: its mail waits, all other mail is decided."""

from __future__ import annotations

import asyncio
import logging

import pytest
import structlog
from structlog.testing import capture_logs

from noetl_broker.daemon import lane, quarantine
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.daemon.service import Service
from noetl_broker.store.connect import connection
from tests.brokers import PATIENCE_SECONDS, broken_invariants, complete_jobs, execute, register, running, start
from tests.chaos.under_load import leave_core, until
from tests.daemon.lanes.test_lanes import ENDED, QUEUED, QUICK, STEP, held
from tests.postgres import Database
from tests.sessions import session

COMPLETED = "select $1 = count(*) from noetl.execution where status = 'COMPLETED'"
HOLDS = "another session holds a row of execution"
WAIT_FOR = """
    with leased as (select queue_id, attempts from noetl.lease_jobs('w'))
    select noetl.wait_for_child(queue_id, 'w', attempts, $1), noetl.complete_job(queue_id, 'w', attempts)
    from leased"""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses and timeouts of seconds."""
    monkeypatch.setitem(connection.SESSION, "lock_timeout", "500ms")
    monkeypatch.setattr(quarantine, "RETRY_SECONDS", 1.0)
    monkeypatch.setattr(quarantine, "LASTING_SECONDS", 0.5)


async def until_reported(service: Service, trouble: str | None) -> None:
    """Wait until the daemon reports this trouble, or none."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (service.trouble is not None) if trouble is None else (trouble not in str(service.trouble)):
            await leave_core()


@pytest.mark.parametrize("count, busy", [(1, 1), (60, 30)], ids=["alone", "many"])
async def test_a_locked_row_delays_only_its_own_execution(database: Database, count: int, busy: int) -> None:
    """The status reports it meanwhile. Then the mail is decided, without a dead letter."""
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
            await until_reported(service, HOLDS)
        await until(database, COMPLETED, count + 1)
        await until_reported(service, None)
    assert await broken_invariants(database) == {}


async def test_an_uncommitted_start_of_a_child_delays_only_its_parent(database: Database) -> None:
    """A worker announces the child outside the transaction that starts it."""
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
        await until_reported(service, HOLDS)
        await starter.execute("commit")
        await until(database, COMPLETED, 3)
        await until_reported(service, None)
    assert await broken_invariants(database) == {}


@pytest.fixture
def lane_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lanes log from the level info on. The loggers of other modules keep their level: they are cached."""
    level = structlog.make_filtering_bound_logger(logging.INFO)
    for module in (quarantine, lane):
        monkeypatch.setattr(module, "log", structlog.wrap_logger(None, wrapper_class=level))


@pytest.mark.usefixtures("lane_log")
async def test_a_short_lock_logs_no_warning(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NoETL server locks rows of each execution that it starts, as long as it is busy."""
    monkeypatch.setattr(quarantine, "LASTING_SECONDS", 3600.0)
    await register(database, STEP)
    with capture_logs() as lines:
        async with running(database, lanes=1) as service:
            executions = await start(database, count=2)
            await until(database, QUEUED, 2)
            async with held(database, executions[:1]):
                await complete_jobs(database)
                await until(database, COMPLETED, 1)
                assert (service.metrics.by_label(metric.FAULTS)["55P03"] > 0, service.trouble) == (True, None)
            await until(database, COMPLETED, 2)
    assert {line["log_level"] for line in lines} == {"info"}
    assert await broken_invariants(database) == {}
