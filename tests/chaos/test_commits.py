"""Rows that commit with the completion of their job are written once, whoever is killed; open commits delay no turn."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from noetl_broker import embedded_postgres
from noetl_broker.embedded_postgres.server import EmbeddedPostgres
from noetl_broker.store.connect.migrations import migrate
from tests.brokers import broken_invariants, execute, register, rows, running, start, value
from tests.chaos.daemons import START_SECONDS
from tests.chaos.sampling import LONG
from tests.chaos.under_load import Tried, prepare, until
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

JOBS = 2_000 if LONG else 200
OPEN = 100 if LONG else 20
KILL_SECONDS = 1.0 if LONG else 0.3
VICTIMS = ("worker", "server", "broker")
OTHERS = 20
LATEST_SECONDS = 0.1
WORKER = """
import asyncio, os
from noetl_broker import Worker
worker = Worker(os.environ["NOETL_BROKER_DSN"], concurrency=8, lease_seconds=2)
@worker.task("charge", transaction=True)
async def charge(job):
    await job.connection.execute("insert into public.charge (execution_id) values ($1)", job.execution_id)
    await asyncio.sleep(0.02)
asyncio.run(worker.run())
"""
CHARGE = """
workflow:
- {step: start, next: charge}
- {step: charge, type: charge, retry: {max_attempts: 100, initial_delay: 0.1}, next: end}
- {step: end}
"""
MORE = "select count(*) > $1 from public.charge"
CHARGED = "select count(*), count(distinct execution_id) from public.charge"
ENDED = "select count(*) = $1 from noetl.execution where status = 'COMPLETED'"
LEASE = "select queue_id, execution_id from noetl.lease_jobs('slow', $1)"
ONCE = "select noetl.complete_job($1, 'slow', 1, only_once => true)"
TURN = """
select extract(epoch from max(t.decided_at - e.created_at))::float8
from noetl.turn t
join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
where t.execution_id = any($1::bigint[])"""
DECIDED = "select count(distinct execution_id) = $2 from noetl.turn where execution_id = any($1::bigint[])"
CANCEL = "select count(noetl.cancel_execution(id, 'test')) from unnest($1::bigint[]) id"
CANCELLED = "select count(*) = $1 from noetl.execution where status = 'CANCELLED'"


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """Yield a Postgres that the test may kill; its commits are durable."""
    with embedded_postgres.start() as postgres:
        yield postgres


class Victims:
    """A worker and a broker as processes, and their server. Each is started again after a kill."""

    def __init__(self, database: Database, postgres: EmbeddedPostgres) -> None:
        self._environment = os.environ | {"NOETL_BROKER_DSN": database.dsn, "NOETL_BROKER_LOG_LEVEL": "error"}
        self._environment |= {"NOETL_BROKER_HEALTH_PORT": "0", "NOETL_BROKER_REAP_SECONDS": "0.2"}
        self._environment |= {"NOETL_BROKER_MAX_LOST_LEASES": "1000", "NOETL_BROKER_VERIFY_SECONDS": "0"}
        self._postgres = postgres
        self._commands = {"worker": ["-c", WORKER], "broker": ["-m", "noetl_broker", "run"]}
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str) -> None:
        """Start a process."""
        self._processes[name] = await asyncio.create_subprocess_exec(
            sys.executable, *self._commands[name], env=self._environment, cwd=Path.cwd()
        )

    async def kill(self, name: str) -> None:
        """Kill one of the three, and start it again."""
        if name == "server":
            await asyncio.to_thread(self._postgres.restart, "immediate")
            return
        self._processes[name].kill()
        await self._processes[name].wait()
        await self.start(name)

    async def stop(self) -> None:
        """Kill the processes."""
        for process in self._processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def victims_of(database: Database, postgres: EmbeddedPostgres) -> AsyncIterator[Victims]:
    """Start worker and broker; kill them after the test."""
    victims = Victims(database, postgres)
    try:
        for name in ("broker", "worker"):
            await victims.start(name)
        yield victims
    finally:
        await victims.stop()


async def test_each_row_is_written_once_whoever_is_killed(own_postgres: EmbeddedPostgres, tried: Tried) -> None:
    """Worker, broker and server are killed in turn, each after some rows more."""
    database = Database(name="postgres", dsn=own_postgres.dsn())
    await migrate(database)
    await execute(database, "create table public.charge (execution_id bigint)")
    await register(database, CHARGE)
    await start(database, count=JOBS)
    kills = 0
    async with victims_of(database, own_postgres) as victims:
        while (charged := await value(database, "select count(*) from public.charge")) < JOBS:
            await until(database, MORE, charged, patience=START_SECONDS, pause=KILL_SECONDS)
            if LONG or kills < len(VICTIMS):
                await victims.kill(VICTIMS[kills % len(VICTIMS)])
                kills += 1
        await until(database, ENDED, JOBS, patience=START_SECONDS)
    assert await rows(database, CHARGED) == [(JOBS, JOBS)]
    assert await broken_invariants(database) == {}
    attempts = await value(database, "select sum(attempts) from noetl.queue")
    tried(
        f"{kills} kills of worker, broker and server beside {JOBS} jobs with rows",
        f"each row once; {attempts} attempts",
    )


async def test_open_commits_of_cancelled_jobs_delay_no_turn(own_postgres: EmbeddedPostgres, tried: Tried) -> None:
    """As many cancels of leased jobs without an open completion are the control."""
    database = Database(name="postgres", dsn=own_postgres.dsn())
    await execute(database, "alter system set max_connections = 200")
    await asyncio.to_thread(own_postgres.restart)
    await migrate(database)
    await prepare(database)
    async with running(database, reap_seconds=0.1):
        await start(database, count=2 * OPEN)
        await until(database, "select count(*) = $1 from noetl.queue where status = 'queued'", 2 * OPEN)
        async with AsyncExitStack() as stack:
            holders = [await stack.enter_async_context(session(database)) for _ in range(OPEN)]
            jobs = await rows(database, LEASE, 2 * OPEN)
            for own, (queue_id, _) in zip(holders, jobs, strict=False):
                await own.execute("begin")
                assert await own.fetchval(ONCE, queue_id)
            before = await latest_turn(database, [execution_id for _, execution_id in jobs[OPEN:]])
            beside = await latest_turn(database, [execution_id for _, execution_id in jobs[:OPEN]])
            await until(database, CANCELLED, 2 * OPEN)
            for own in holders:
                await own.execute("commit")
        await until(database, "select count(*) = 0 from noetl.job_to_cancel")
    if LONG:
        assert beside - before <= LATEST_SECONDS
    tried(
        f"{OPEN} cancels beside {OPEN} open commits",
        f"latest turn of others: {1000 * beside:.0f} ms, without open commits {1000 * before:.0f} ms",
    )


async def latest_turn(database: Database, cancelled: list[int]) -> float:
    """Cancel these, and start others at once; give the longest time from an event of those to its turn."""
    await value(database, CANCEL, cancelled)
    others = await start(database, count=OTHERS)
    await until(database, DECIDED, others, OTHERS)
    return float(await value(database, TURN, others))
