"""Poolers: one that mixes up prepared statements is named in the log, and causes no dead letters."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from noetl_broker.client import Client
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.daemon.service import Service
from noetl_broker.errors import DatabaseFault
from noetl_broker.store.connection import Connection
from noetl_broker.store.doctor import examine
from noetl_broker.store.session import session
from noetl_broker.worker import WorkerOptions, run_worker
from tests.brokers import (
    PATIENCE_SECONDS,
    broken_invariants,
    drain,
    execute,
    options,
    register,
    running,
    start,
    until_ended,
    value,
)
from tests.chaos.daemons import START_SECONDS
from tests.chaos.mixing_pooler import MixingPooler
from tests.chaos.pgbouncer import pgbouncer
from tests.chaos.sampling import sample
from tests.chaos.test_sqlstates import INJECT
from tests.chaos.under_load import finish_all, leave_core, prepare
from tests.postgres import Database

pytestmark = pytest.mark.chaos

Between = Callable[[Database], AbstractAsyncContextManager[Database]]
REMEDY = "connect to the server itself, or let the pooler keep prepared statements"
SLEEPS = """
workflow:
- {step: start, next: a}
- {step: a, type: sleep, seconds: 0, next: end}
- {step: end}
"""
# Like a pooler between two transactions, this trigger drops the session's prepared statements.
FORGETS = """
create sequence public.forgot;
create function public.forget() returns trigger language plpgsql as $$
begin
  if nextval('public.forgot') <= 3 then
    execute 'deallocate all';
  end if;
  return null;
end $$;
create trigger forget after {what} for each statement execute function public.forget()"""


@asynccontextmanager
async def mixed(database: Database) -> AsyncIterator[Database]:
    """Give the database behind our own transaction pooler."""
    async with MixingPooler(database) as pooler:
        yield pooler.database


@pytest.fixture(params=[mixed, pgbouncer], ids=["mixing", "pgbouncer"])
def between(request: pytest.FixtureRequest) -> Between:
    """Give a pooler that mixes up prepared statements between the program and its database."""
    made: Between = request.param
    return made


async def test_a_broker_waits_behind_a_mixing_pooler_and_logs_why(database: Database, between: Between) -> None:
    """It takes no turn and makes no dead letter; its status names the remedy."""
    await prepare(database)
    await start(database, count=5)
    async with between(database) as behind:
        service = Service(options(behind))
        task = asyncio.create_task(service.run())
        async with asyncio.timeout(PATIENCE_SECONDS):
            while REMEDY not in (service.trouble or "") and not task.done():
                await leave_core()
        service.stopping.set()
        with pytest.raises(DatabaseFault, match=REMEDY):
            await asyncio.wait_for(task, PATIENCE_SECONDS)
    assert await value(database, "select count(*) from noetl.dead_letter") == 0
    assert await value(database, "select count(*) from noetl.inbox") == 5


async def test_with_fail_fast_a_broker_ends_behind_a_mixing_pooler(database: Database, between: Between) -> None:
    """With exit code 69."""
    async with between(database) as behind:
        with pytest.raises(DatabaseFault, match=REMEDY):
            await drain(behind, fail_fast=True)


async def test_a_worker_logs_why_it_leases_nothing_behind_a_mixing_pooler(database: Database, between: Between) -> None:
    """It waits, and each log line names the remedy."""
    await prepare(database)
    await start(database, count=1)
    await drain(database)
    async with between(database) as behind:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "noetl_broker", "worker", "--dsn", behind.dsn), stderr=asyncio.subprocess.PIPE
        )
        assert worker.stderr is not None
        lines: list[str] = []
        async with asyncio.timeout(START_SECONDS):
            while not any("lease_failed" in line for line in lines):
                lines.append((await worker.stderr.readline()).decode())
            worker.terminate()
            assert await worker.wait() == 0
    assert REMEDY in lines[-1]
    assert await value(database, "select status from noetl.queue") == "queued"


async def test_a_client_raises_why_it_cannot_start_an_execution(database: Database, between: Between) -> None:
    """The client of this package, as a producer uses it."""
    await prepare(database)
    async with between(database) as behind, Client(behind.dsn, schema=behind.schema) as client:
        with pytest.raises(DatabaseFault, match=REMEDY):
            await client.start("story")


async def test_doctor_finds_a_pooler_that_mixes_up_statements(database: Database, between: Between) -> None:
    """The finding names the kind of pooler."""
    async with between(database) as behind:
        found = [finding for finding in await examine(behind) if finding.check == "pooler"]
    assert [(finding.state, "prepared statements" in finding.says) for finding in found] == [("problem", True)]
    assert "max_prepared_statements" in (found[0].do or "")


@pytest.mark.parametrize("mode, prepared", [("transaction", 100), ("session", 0)])
async def test_a_pooler_that_supports_prepared_statements_works(database: Database, mode: str, prepared: int) -> None:
    """One that renames statements, and one that gives each connection its own session."""
    await prepare(database)
    async with pgbouncer(database, mode=mode, prepared=prepared) as behind, running(behind, sweep_seconds=0.2):
        await start(database, count=20)
        await finish_all(database)
    assert await broken_invariants(database) == {}


async def test_a_broker_reconnects_when_sessions_lose_prepared_statements(database: Database) -> None:
    """Three times during a turn: nothing is lost, and no mail becomes a dead letter."""
    await prepare(database)
    await execute(database, FORGETS.format(what="insert on noetl.turn"))
    async with running(database, lanes=1):
        for _ in range(2):
            await start(database, count=5)
            await finish_all(database)
    assert await broken_invariants(database) == {}
    assert await value(database, "select last_value >= 3 from public.forgot")


@pytest.mark.parametrize("null", [True, False], ids=["null", "reference"])
async def test_a_worker_reconnects_when_sessions_lose_prepared_statements(database: Database, *, null: bool) -> None:
    """One call fails on each connection, and the same worker completes all jobs."""
    await register(database, SLEEPS)
    await execute(database, FORGETS.format(what="update on noetl.queue"))
    stop = asyncio.Event()
    async with running(database):
        task = asyncio.create_task(run_worker(WorkerOptions(dsn=database.dsn, schema=database.schema, null=null), stop))
        for _ in range(3):
            await start(database, count=5)
            await until_ended(database)
        stop.set()
        await asyncio.wait_for(task, PATIENCE_SECONDS)
    assert await value(database, "select last_value > 3 from public.forgot")


@pytest.mark.parametrize("state", sample(["08P01", "25P02", "26000", "42P05"], 2))
async def test_pooler_faults_of_one_event_make_no_dead_letter(database: Database, state: str) -> None:
    """The event fails alone six times; a fault of its own would make it a dead letter."""
    await prepare(database)
    await execute(database, INJECT.format(state=state, times=6))
    async with running(database, lanes=1) as service:
        await start(database)
        await finish_all(database)
    assert (service.metrics.total(metric.SET_ASIDE), service.metrics.by_label(metric.FAULTS)) == (0, {state: 6})
    assert await broken_invariants(database) == {}


async def test_a_command_names_the_pooler_that_mixes_up_its_statements(database: Database) -> None:
    """Another client uses the session in which the command prepared its statement."""
    async with mixed(database) as behind, session(behind, name="one") as one:
        with pytest.raises(DatabaseFault, match=REMEDY):
            await _ask_beside(behind, one)


async def _ask_beside(behind: Database, one: Connection) -> None:
    async with session(behind, name="other") as other:
        await other.fetchval("select $1::int", 1)
        async with one.transaction():
            await other.fetchval("select $1::int", 1)
