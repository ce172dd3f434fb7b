"""The listener goes deaf in every way that it can; what it would have heard is read all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from noetl_broker.store import embedded
from noetl_broker.store.embedded import EmbeddedPostgres
from noetl_broker.store.migrate import migrate
from noetl_broker.store.pool import connect
from tests.brokers import broken_invariants, running, start, value
from tests.chaos.swallow import Swallower
from tests.chaos.under_load import Tried, finish_all, prepare, until
from tests.postgres import Database
from tests.sessions import Session, session

pytestmark = pytest.mark.chaos

MOST_SECONDS = 15.0
GATE = """exists (
  select
  from pg_locks
  where locktype = 'advisory' and classid = 1852794228 and objid = 1 and granted and mode = 'ExclusiveLock'
    and database = (select oid from pg_database where datname = current_database())
)"""
GATE_HELD = f"select {GATE}"
LISTENER = b"noetl-broker bell"
LET_GO_SINCE = """
select exists (
  select
  from pg_stat_activity
  where application_name = 'noetl-broker bell' and datname = current_database()
    and query like '%pg_advisory_unlock%' and query_start > $1
)"""


@pytest.mark.parametrize("name", ["noetl-broker bell", "noetl-broker run"])
async def test_a_connection_that_is_half_open_is_found(database: Database, name: str, tried: Tried) -> None:
    """Its bytes vanish, and nobody hangs up: within 15 seconds the daemon has another one, and reads what came."""
    await prepare(database)
    async with Swallower(database) as wire, running(wire.database, sweep_seconds=1.0):
        await until(database, GATE_HELD)
        assert wire.swallow(name.encode()) > 0
        await start(database, count=5)
        seconds = await until(database, "select count(*) = 5 from noetl.turn")
        assert seconds < MOST_SECONDS
        await finish_all(database)
    assert await broken_invariants(database) == {}
    tried(f"'{name}' half open", f"0 lost; read after {seconds:.1f} s")


async def test_a_listener_whose_answers_come_late_keeps_nobody_waiting(database: Database, tried: Tried) -> None:
    """It hears every ring, but whether it has the gate nobody knows: mail is read meanwhile."""
    await prepare(database)
    longest = 0.0
    async with Swallower(database) as wire, running(wire.database) as service, session(database) as other:
        await asleep_again(database, other)
        assert wire.keep_answers(LISTENER) == 1
        async with a_mail_that_is_held(other):
            await until(database, f"select not {GATE}")  # its answer is kept
        for _ in range(3):
            await start(database, count=5)
            longest = max(longest, await until(database, "select not exists (select from noetl.inbox)"))
        assert service.bell is not None
        assert service.bell.reconnects == 1  # before the answer was given up for lost
        await finish_all(database)
    assert await broken_invariants(database) == {}
    tried("a listener whose answers do not come", f"0 lost; read after {longest:.2f} s at most")


async def test_a_gate_that_comes_late_is_let_go_while_there_is_work(database: Database) -> None:
    """The broker is at work again when it hears that it has the gate: writers should not ring for all that time."""
    await prepare(database)
    async with (
        Swallower(database) as wire,
        running(wire.database, sweep_seconds=60.0) as service,
        session(database) as other,
    ):
        await asleep_again(database, other)
        wire.keep_answers(LISTENER)
        async with a_mail_that_is_held(other):
            await until(database, f"select not {GATE}")
        await until(database, "select not exists (select from noetl.inbox)")
        async with a_mail_that_is_held(other):
            missed, now = service.counters.misses, None
            while service.counters.misses == missed:
                now = await other.fetchval("select clock_timestamp()")
            wire.give_answers()
            await until(database, LET_GO_SINCE, now)
        await until(database, GATE_HELD)
        assert service.bell is not None
        assert service.bell.reconnects == 1  # it was this answer that came late


async def asleep_again(database: Database, other: Session[Any]) -> None:
    """Wait until the daemon has let the gate go and taken it again: from then on its statements are prepared."""
    await until(database, GATE_HELD)
    async with a_mail_that_is_held(other):
        await until(database, f"select not {GATE}")
    await until(database, GATE_HELD)


@asynccontextmanager
async def a_mail_that_is_held(other: Session[Any]) -> AsyncIterator[None]:
    """An execution that the daemon must wait for, as if another broker had it; it is at work for so long."""
    await other.execute("begin")
    execution_id = await other.fetchval("select noetl.start_execution('story')")
    await other.execute("select pg_advisory_lock($1)", execution_id)
    await other.execute("commit")
    try:
        yield
    finally:
        await other.execute("select pg_advisory_unlock($1)", execution_id)


async def test_behind_a_proxy_that_drops_notifications_mail_is_read(database: Database, tried: Tried) -> None:
    """The listener hears nothing for ever: each sweep reads what is there."""
    await prepare(database)
    longest = 0.0
    async with Swallower(database, deaf=b"noetl-broker bell") as wire, running(wire.database, sweep_seconds=0.3):
        for _ in range(5):
            await until(database, GATE_HELD)
            await start(database)
            longest = max(longest, await until(database, "select not exists (select from noetl.inbox)"))
        await finish_all(database)
    assert await broken_invariants(database) == {}
    tried("a proxy drops notifications, sweep_seconds 0.3", f"0 unread; read after {longest:.2f} s at most")


@pytest.fixture
def small_queue() -> Iterator[EmbeddedPostgres]:
    """Yield a Postgres whose notification queue is soon full."""
    with embedded.start(settings={"max_notify_queue_pages": "64", "fsync": "off"}) as postgres:
        yield postgres


async def fill_queue(writer: asyncpg.Connection, share: float) -> None:
    """Notify a channel of nobody's until the queue is so full."""
    while await writer.fetchval("select pg_notification_queue_usage()") < share:
        try:
            await writer.execute("select pg_notify('other', repeat('x', 3000) || g) from generate_series(1, 4) g")
        except asyncpg.ProgramLimitExceededError:
            return


async def test_a_full_notification_queue_fails_no_producer(small_queue: EmbeddedPostgres, tried: Tried) -> None:
    """A stranger listens and does not read: producers commit, the daemon reads, nobody's mail is set aside."""
    database = Database(name="postgres", dsn=small_queue.dsn())
    await migrate(database.dsn)
    await prepare(database)
    stranger, writer = await connect(database.dsn, name="test"), await connect(database.dsn, name="test")
    try:
        await stranger.execute("set idle_in_transaction_session_timeout = 0; set transaction_timeout = 0; listen other")
        await stranger.execute("begin; select 1")
        async with running(database, sweep_seconds=0.3):
            await fill_queue(writer, 0.6)
            await until(database, f"select not {GATE}")
            await fill_queue(writer, 2.0)
            with pytest.raises(asyncpg.ProgramLimitExceededError):
                await writer.execute("select pg_notify('other', 'x') from generate_series(1, 9000)")
            await start(database, count=50)
            seconds = await finish_all(database)
            assert await value(database, "select pg_notification_queue_usage() > 0.9")
            await stranger.execute("rollback")
            await until(database, GATE_HELD)
        assert await broken_invariants(database) == {}
    finally:
        await asyncio.gather(stranger.close(), writer.close())
    tried("a full notification queue", f"no producer failed, 0 lost; 50 executions in {seconds:.1f} s")
