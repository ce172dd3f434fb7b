"""Behind a pooler: one that mixes up prepared statements is refused by name, and nothing is set aside because of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from noetl_broker.client import Client
from noetl_broker.daemon.service import Service
from noetl_broker.errors import DatabaseFault
from noetl_broker.store.examining import examine
from noetl_broker.store.pool import Connection
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
from tests.chaos.bouncer import bouncer
from tests.chaos.mixer import Mixer
from tests.chaos.test_sqlstates import INJECT
from tests.chaos.under_load import finish_all, prepare
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
# A trigger that does to the session what a pooler does between two transactions: its prepared statements are gone.
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
    """Behind a transaction pooler of our own."""
    async with Mixer(database) as mixer:
        yield mixer.database


@pytest.fixture(params=[mixed, bouncer], ids=["mixer", "pgbouncer"])
def between(request: pytest.FixtureRequest) -> Between:
    """Give what stands between the program and its database, and mixes up prepared statements."""
    made: Between = request.param
    return made


async def test_a_broker_waits_and_says_why(database: Database, between: Between) -> None:
    """No turn is taken, no mail is set aside, and what is waited for says what to do."""
    await prepare(database)
    await start(database, count=5)
    async with between(database) as behind:
        service = Service(options(behind))
        task = asyncio.create_task(service.run())
        async with asyncio.timeout(PATIENCE_SECONDS):
            while REMEDY not in (service.trouble or "") and not task.done():
                await value(database, "select 1")
        service.stopping.set()
        with pytest.raises(DatabaseFault, match=REMEDY):
            await asyncio.wait_for(task, PATIENCE_SECONDS)
    assert await value(database, "select count(*) from noetl.dead_letter") == 0
    assert await value(database, "select count(*) from noetl.inbox") == 5


async def test_a_broker_that_waits_for_nothing_ends(database: Database, between: Between) -> None:
    """With --fail-fast, by 69."""
    async with between(database) as behind:
        with pytest.raises(DatabaseFault, match=REMEDY):
            await drain(behind, fail_fast=True)


async def test_a_worker_says_why_it_leases_nothing(database: Database, between: Between) -> None:
    """It waits, and every line of its log says what to do."""
    await prepare(database)
    await start(database, count=1)
    await drain(database)
    async with between(database) as behind:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "noetl_broker", "worker", "--dsn", behind.dsn), stderr=asyncio.subprocess.PIPE
        )
        assert worker.stderr is not None
        lines: list[str] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not any("lease_failed" in line for line in lines):
                lines.append((await worker.stderr.readline()).decode())
            worker.terminate()
            assert await worker.wait() == 0
    assert REMEDY in lines[-1]
    assert await value(database, "select status from noetl.queue") == "queued"


async def test_a_client_says_why_it_starts_nothing(database: Database, between: Between) -> None:
    """A program of a producer's that uses ours to connect."""
    await prepare(database)
    async with between(database) as behind, Client(behind.dsn) as client:
        with pytest.raises(DatabaseFault, match=REMEDY):
            await client.start("story")


async def test_doctor_finds_a_pooler_that_mixes_up_statements(database: Database, between: Between) -> None:
    """It says what kind of pooler that is."""
    async with between(database) as behind:
        found = [finding for finding in await examine(behind.dsn) if finding.check == "pooler"]
    assert [(finding.state, "prepared statements" in finding.says) for finding in found] == [("problem", True)]
    assert "max_prepared_statements" in (found[0].do or "")


@pytest.mark.parametrize("mode, prepared", [("transaction", 100), ("session", 0)])
async def test_a_pooler_that_keeps_statements_apart_is_served(database: Database, mode: str, prepared: int) -> None:
    """One that renames them, and one that gives each connection a session of its own."""
    await prepare(database)
    async with bouncer(database, mode=mode, prepared=prepared) as behind, running(behind, sweep_seconds=0.2):
        await start(database, count=20)
        await finish_all(database)
    assert await broken_invariants(database) == {}


async def test_a_broker_whose_sessions_forget_their_statements_connects_again(database: Database) -> None:
    """Three times in the midst of a turn: nothing is lost, nothing set aside, and the same daemon goes on."""
    await prepare(database)
    await execute(database, FORGETS.format(what="insert on noetl.turn"))
    async with running(database, lanes=1):
        for _ in range(2):
            await start(database, count=5)
            await finish_all(database)
    assert await broken_invariants(database) == {}
    assert await value(database, "select last_value >= 3 from public.forgot")


@pytest.mark.parametrize("null", [True, False], ids=["null", "reference"])
async def test_a_worker_whose_sessions_forget_their_statements_connects_again(
    database: Database, *, null: bool
) -> None:
    """Its next calls fail once on each connection, and all jobs are done by the same worker."""
    await register(database, SLEEPS)
    await execute(database, FORGETS.format(what="update on noetl.queue"))
    stop = asyncio.Event()
    async with running(database):
        task = asyncio.create_task(run_worker(WorkerOptions(dsn=database.dsn, null=null), stop))
        for _ in range(3):
            await start(database, count=5)
            await until_ended(database)
        stop.set()
        await asyncio.wait_for(task, PATIENCE_SECONDS)
    assert await value(database, "select last_value > 3 from public.forgot")


@pytest.mark.parametrize("state", ["08P01", "25P02", "26000", "42P05"])
async def test_what_a_pooler_does_to_one_event_sets_nothing_aside(database: Database, state: str) -> None:
    """It fails alone, six times: as often as an event of its own would be looked for and set aside."""
    await prepare(database)
    await execute(database, INJECT.format(state=state, times=6))
    async with running(database, lanes=1) as service:
        await start(database)
        await finish_all(database)
    assert (service.counters.set_aside, service.counters.faults) == (0, {state: 6})
    assert await broken_invariants(database) == {}


async def test_a_command_says_what_mixes_up_its_statements(database: Database) -> None:
    """Another holds the session in which it prepared its statement."""
    async with mixed(database) as behind, session(behind.dsn, name="one") as one:
        with pytest.raises(DatabaseFault, match=REMEDY):
            await _ask_beside(behind, one)


async def _ask_beside(behind: Database, one: Connection) -> None:
    async with session(behind.dsn, name="other") as other:
        await other.fetchval("select $1::int", 1)
        async with one.transaction():
            await other.fetchval("select $1::int", 1)
