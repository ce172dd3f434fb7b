"""Postgres goes away in every way that it can, whole or one connection at a time; work goes on where it stood."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from noetl_broker.store import embedded
from noetl_broker.store.embedded import EmbeddedPostgres, Mode
from noetl_broker.store.migrate import migrate
from tests.brokers import broken_invariants, running, start, value
from tests.chaos.extent import LONG
from tests.chaos.under_load import Tried, finish_all, load, prepare, until
from tests.postgres import Database

pytestmark = pytest.mark.chaos

KILLS = 100 if LONG else 8
TERMINATE = """
select count(pg_terminate_backend(pid))
from pg_stat_activity
where datname = current_database() and application_name = $1"""
CONNECTED = """
select count(*) > 0
from pg_stat_activity
where datname = current_database() and application_name = $1"""


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """Yield a Postgres that may be restarted; its commits are on the disk when it says so."""
    with embedded.start() as postgres:
        yield postgres


@pytest.fixture
async def own_database(own_postgres: EmbeddedPostgres) -> Database:
    """Give its one database, migrated."""
    database = Database(name="postgres", dsn=own_postgres.dsn())
    await migrate(database.dsn)
    return database


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_loses_nothing(
    own_postgres: EmbeddedPostgres, own_database: Database, mode: Mode, tried: Tried
) -> None:
    """Restarted under load; the daemon goes on by itself, and all that was acknowledged ends."""
    database = own_database
    if not await value(database, "select exists (select from noetl.catalog)"):
        await prepare(database)
    async with running(database) as service:
        acknowledged = await start(database, count=200)
        await until(database, "select count(*) > 20 from noetl.turn")
        before = service.counters.turns
        await asyncio.to_thread(own_postgres.restart, mode)
        began = time.monotonic()
        acknowledged += await start(database, count=1)
        async with asyncio.timeout(30):
            while service.counters.turns == before:
                await value(database, "select 1")
        seconds = time.monotonic() - began
        await finish_all(database)
    ended = "select count(*) from noetl.execution where status = 'COMPLETED' and execution_id = any ($1::bigint[])"
    assert await value(database, ended, acknowledged) == len(acknowledged)
    assert await broken_invariants(database) == {}
    tried(f"Postgres restarted ({mode}) under load", f"0 lost; turns again after {seconds:.2f} s")


@pytest.mark.parametrize("name", ["noetl-broker run", "noetl-broker bell"])
async def test_connections_of_the_daemon_are_terminated(database: Database, name: str, tried: Tried) -> None:
    """Each kind of connection is ended by the server again and again under load; the daemon makes it anew."""
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
