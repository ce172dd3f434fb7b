"""Postgres restarts or terminates connections; work continues."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from noetl_broker import embedded_postgres
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.embedded_postgres.server import EmbeddedPostgres, Mode
from noetl_broker.store.migrations import migrate
from tests.brokers import PATIENCE_SECONDS, broken_invariants, register, rows, running, start, value
from tests.chaos.sampling import LONG
from tests.chaos.under_load import Tried, finish_all, leave_core, load, prepare, until
from tests.postgres import Database

pytestmark = pytest.mark.chaos

KILLS = 100 if LONG else 4
TIMERS = 500 if LONG else 150
TERMINATE = """
select count(pg_terminate_backend(pid))
from pg_stat_activity
where datname = current_database() and application_name in ($1::text, $1 || ' noetl')"""
CONNECTED = """
select count(*) > 0
from pg_stat_activity
where datname = current_database() and application_name in ($1::text, $1 || ' noetl')"""


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """Yield a Postgres that the test may restart; its commits are durable."""
    with embedded_postgres.start() as postgres:
        yield postgres


@pytest.fixture
async def own_database(own_postgres: EmbeddedPostgres) -> Database:
    """Give a migrated database on it."""
    database = Database(name="postgres", dsn=own_postgres.dsn())
    await migrate(database)
    return database


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_of_postgres_loses_nothing(
    own_postgres: EmbeddedPostgres, own_database: Database, mode: Mode, tried: Tried
) -> None:
    """Under load. The daemon reconnects, and all acknowledged executions end."""
    database = own_database
    if not await value(database, "select exists (select from noetl.catalog where path = 'story')"):
        await prepare(database)
    async with running(database) as service:
        acknowledged = await start(database, count=100)
        await until(database, "select count(*) > 20 from noetl.turn")
        before = service.metrics.total(metric.TURNS)
        await asyncio.to_thread(own_postgres.restart, mode)
        began = time.monotonic()
        acknowledged += await start(database, count=1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while service.metrics.total(metric.TURNS) == before:
                await leave_core()
        seconds = time.monotonic() - began
        await finish_all(database)
    ended = "select count(*) from noetl.execution where status = 'COMPLETED' and execution_id = any ($1::bigint[])"
    assert await value(database, ended, acknowledged) == len(acknowledged)
    assert await broken_invariants(database) == {}
    tried(f"Postgres restarted ({mode}) under load", f"0 lost; turns again after {seconds:.2f} s")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_timers_that_are_due_during_a_restart_fire_once(
    own_postgres: EmbeddedPostgres, own_database: Database, mode: Mode, tried: Tried
) -> None:
    """Beside two brokers; the moments are before, during and after the restart."""
    database = own_database
    if not await value(database, "select exists (select from noetl.catalog where path = 'cool')"):
        body = """
        workflow:
        - {step: start, next: cool}
        - {step: cool, type: wait, for: 1h, next: end}
        - {step: end}
        """
        await register(database, body, path="cool")
    started = await start(database, "cool", count=TIMERS)
    waiting = f"select count(*) = {TIMERS} from noetl.wait where status = 'open' and execution_id = any ($1::bigint[])"
    async with running(database), running(database):
        await until(database, waiting, started)
        spread = "update noetl.timer set due_at = clock_timestamp() + random() * interval '2 s'"
        await value(
            database, f"with moved as ({spread} returning due_at) select noetl.ring_timers(min(due_at)) from moved"
        )
        await asyncio.to_thread(own_postgres.restart, mode)
        ended = f"""
            select count(*) = {TIMERS}
            from noetl.execution
            where status = 'COMPLETED' and execution_id = any ($1::bigint[])"""
        await until(database, ended, started)
    fired = """
        select count(*), count(distinct execution_id)
        from noetl.event
        where event_type = 'timer_due' and execution_id = any ($1::bigint[])"""
    assert await rows(database, fired, started) == [(TIMERS, TIMERS)]
    assert await rows(database, "select * from noetl.timer") == []
    tried(f"Postgres restarted ({mode}) while timers were due", "0 lost, 0 doubled")


@pytest.mark.parametrize("name", ["noetl-broker run", "noetl-broker bell"])
async def test_the_daemon_replaces_terminated_connections(database: Database, name: str, tried: Tried) -> None:
    """The server terminates each kind of connection repeatedly under load."""
    await prepare(database)
    ended, longest = 0, 0.0
    async with running(database):
        async with load(database):
            while ended < (KILLS * 2 if "bell" in name else KILLS):
                longest = max(longest, await until(database, CONNECTED, name))
                ended += await value(database, TERMINATE, name)
        await finish_all(database)
    assert await broken_invariants(database) == {}
    tried(f"{ended} connections '{name}' terminated under load", f"0 lost; back after {longest:.2f} s at most")
