"""Poolers: one that mixes up prepared statements is named in the log, and causes no dead letters."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from noetl_broker.client import Client
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.daemon.service import Service
from noetl_broker.errors import DatabaseFault
from noetl_broker.store.admin.doctor import examine
from noetl_broker.store.connect.session import session
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
from tests.chaos.pgbouncer import pgbouncer
from tests.chaos.sampling import sample
from tests.chaos.test_sqlstates import INJECT
from tests.chaos.under_load import finish_all, leave_core, prepare
from tests.postgres import Database
from tests.processes import start_command

pytestmark = pytest.mark.chaos

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


@pytest.fixture
async def mixed(database: Database) -> AsyncIterator[Database]:
    """Give the database behind a pooler that mixes up prepared statements."""
    await prepare(database)
    async with pgbouncer(database) as behind:
        yield behind


async def test_a_broker_waits_behind_a_mixing_pooler_and_logs_why(database: Database, mixed: Database) -> None:
    """It takes no turn and makes no dead letter; its status names the remedy. With `fail_fast` it ends."""
    await start(database, count=5)
    service = Service(options(mixed))
    task = asyncio.create_task(service.run())
    async with asyncio.timeout(PATIENCE_SECONDS):
        while REMEDY not in (service.trouble or "") and not task.done():
            await leave_core()
    service.stopping.set()
    with pytest.raises(DatabaseFault, match=REMEDY):
        await asyncio.wait_for(task, PATIENCE_SECONDS)
    with pytest.raises(DatabaseFault, match=REMEDY):
        await drain(mixed, fail_fast=True)
    assert await value(database, "select count(*) from noetl.dead_letter") == 0
    assert await value(database, "select count(*) from noetl.inbox") == 5


async def test_a_worker_logs_why_it_leases_nothing_behind_a_mixing_pooler(database: Database, mixed: Database) -> None:
    """It waits, and each log line names the remedy."""
    await start(database, count=1)
    await drain(database)
    worker = start_command(["worker", "--dsn", mixed.dsn], cwd=Path.cwd(), env=os.environ, stdout=subprocess.DEVNULL)
    try:
        assert worker.stderr is not None
        line = ""
        async with asyncio.timeout(START_SECONDS):
            while "lease_failed" not in line:
                line = await asyncio.to_thread(worker.stderr.readline)
        worker.terminate()
        assert await asyncio.to_thread(worker.wait) == 0
    finally:
        worker.kill()
        await asyncio.to_thread(worker.communicate)
    assert REMEDY in line
    assert await value(database, "select status from noetl.queue") == "queued"


async def test_clients_raise_why_their_statements_fail_behind_a_mixing_pooler(mixed: Database) -> None:
    """A producer, and a command beside another one that uses the session in which it prepared its statement."""

    async def ask_beside() -> None:
        async with session(mixed, name="one") as one, session(mixed, name="other") as other:
            await other.fetchval("select $1::int", 1)
            async with one.transaction():
                await other.fetchval("select $1::int", 1)

    async with Client(mixed.dsn, schema=mixed.schema) as client:
        with pytest.raises(DatabaseFault, match=REMEDY):
            await client.start("story")
    with pytest.raises(DatabaseFault, match=REMEDY):
        await ask_beside()


async def test_doctor_finds_a_pooler_that_mixes_up_statements(mixed: Database) -> None:
    """The finding names the kind of pooler."""
    found = [finding for finding in await examine(mixed) if finding.check == "pooler"]
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


@pytest.mark.parametrize("state", sample(["08P01", "25P02", "26000", "42P05"], 1))
async def test_pooler_faults_of_one_event_make_no_dead_letter(database: Database, state: str) -> None:
    """The event fails alone six times; a fault of its own would make it a dead letter."""
    await prepare(database)
    await execute(database, INJECT.format(state=state, times=6))
    async with running(database, lanes=1) as service:
        await start(database)
        await finish_all(database)
    assert (service.metrics.total(metric.SET_ASIDE), service.metrics.by_label(metric.FAULTS)) == (0, {state: 6})
    assert await broken_invariants(database) == {}
