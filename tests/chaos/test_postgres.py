"""Postgres restarts or terminates connections; work continues."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from noetl_broker import embedded_postgres
from noetl_broker.embedded_postgres.server import EmbeddedPostgres, Mode
from noetl_broker.store.connect.migrations import migrate
from tests.brokers import broken_invariants, register, rows, running, start, value
from tests.chaos.sampling import LONG
from tests.chaos.under_load import Tried, finish_all, load, prepare, until
from tests.postgres import Database

pytestmark = pytest.mark.chaos

KILLS = 100 if LONG else 4
TIMERS = 500 if LONG else 50
MODES: tuple[Mode, ...] = ("fast", "immediate") if LONG else ("immediate",)
COOL = """
workflow:
- {step: start, next: cool}
- {step: cool, type: wait, for: 1h, next: end}
- {step: end}
"""
OPEN = "select count(*) = $2 from noetl.wait where status = 'open' and execution_id = any ($1::bigint[])"
SPREAD = """
with moved as (
  update noetl.timer set due_at = clock_timestamp() + random() * interval '2 s' returning due_at
)
select noetl.notify_timers(min(due_at)) from moved"""
FIRED = """
select count(*), count(distinct execution_id)
from noetl.event
where event_type = 'timer_due' and execution_id = any ($1::bigint[])"""
DECIDED = "select exists (select from noetl.turn where execution_id = $1)"
ENDED = "select count(*) from noetl.execution where status = 'COMPLETED' and execution_id = any ($1::bigint[])"
TERMINATE = """
select count(pg_terminate_backend(pid))
from pg_stat_activity
where datname = current_database() and application_name in ($1::text, $1 || ' noetl')"""
CONNECTED = """
select count(*) > 0
from pg_stat_activity
where datname = current_database() and application_name in ($1::text, $1 || ' noetl')"""


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """Yield a Postgres that the test may restart; its commits are durable."""
    with embedded_postgres.start() as postgres:
        yield postgres


async def test_a_restart_of_postgres_loses_nothing(own_postgres: EmbeddedPostgres, tried: Tried) -> None:
    """Under load, beside two brokers: all acknowledged executions end, and each timer fires once.

    Timers are due before, during and after each restart.
    """
    database = Database(name="postgres", dsn=own_postgres.dsn())
    await migrate(database)
    await prepare(database)
    await register(database, COOL, path="cool")
    for mode in MODES:
        waiting = await start(database, "cool", count=TIMERS)
        async with running(database), running(database):
            await until(database, OPEN, waiting, TIMERS)
            await value(database, SPREAD)
            acknowledged = await start(database, count=100)
            before = await value(database, "select count(*) from noetl.turn")
            await until(database, "select count(*) > $1 + 20 from noetl.turn", before)
            await asyncio.to_thread(own_postgres.restart, mode)
            acknowledged += await start(database, count=1)
            seconds = await until(database, DECIDED, acknowledged[-1])
            tried(f"Postgres restarted ({mode}) under load", f"turns again after {seconds:.2f} s")
            await finish_all(database)
        assert await value(database, ENDED, [*acknowledged, *waiting]) == len(acknowledged) + TIMERS
        assert await rows(database, FIRED, waiting) == [(TIMERS, TIMERS)]
        assert await rows(database, "select * from noetl.timer") == []
        assert await broken_invariants(database) == {}


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
