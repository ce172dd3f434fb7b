"""The listener stops hearing in every possible way; mail is read anyway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from noetl_broker import embedded_postgres
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.daemon.service import Service
from noetl_broker.embedded_postgres.server import EmbeddedPostgres
from noetl_broker.store.connect import listener
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.connect.migrations import migrate
from tests.brokers import PATIENCE_SECONDS, broken_invariants, running, start, value
from tests.chaos.sampling import LONG
from tests.chaos.silent_proxy import SilentProxy
from tests.chaos.under_load import Tried, finish_all, leave_core, prepare, until
from tests.postgres import Database
from tests.sessions import Session, session

pytestmark = pytest.mark.chaos

MOST_SECONDS = 15.0
GATE = """exists (
  select
  from pg_locks
  where locktype = 'advisory' and classid = hashtext('noetl.lock')::oid and objid = 1
    and granted and mode = 'ExclusiveLock'
    and database = (select oid from pg_database where datname = current_database())
)"""
GATE_HELD = f"select {GATE}"
NOTHING_RUNS = """
    select not exists (
        select from pg_stat_activity
        where datname = current_database() and application_name like 'noetl-broker run%' and state <> 'idle')"""
LISTENER = b"noetl-broker bell"
TAKES_MAIL = """
select exists (
  select
  from pg_stat_activity
  where datname = current_database() and query like '%take_mail%' and wait_event_type = 'Lock'
)"""
LET_GO_SINCE = """
select exists (
  select
  from pg_stat_activity
  where application_name = 'noetl-broker bell' and datname = current_database()
    and query like '%pg_advisory_unlock%' and query_start > $1
)"""


@pytest.mark.parametrize("name, sweep_seconds", [("noetl-broker bell", 1.0), ("noetl-broker run", 60.0)])
async def test_a_half_open_connection_is_replaced(
    database: Database, name: str, sweep_seconds: float, tried: Tried
) -> None:
    """The daemon has a new connection and reads the mail; `make chaos` holds it to 15 seconds.

    It does nothing when the connection is lost. A lost transaction keeps its locks at the server for longer.
    """
    await prepare(database)
    async with SilentProxy(database) as proxy, running(proxy.database, sweep_seconds=sweep_seconds):
        await until(database, GATE_HELD)
        await until(database, NOTHING_RUNS)
        assert proxy.drop_all(name.encode()) > 0
        await start(database, count=5)
        patience = MOST_SECONDS if LONG else PATIENCE_SECONDS
        seconds = await until(database, "select count(*) = 5 from noetl.turn", patience=patience)
        await finish_all(database)
    assert await broken_invariants(database) == {}
    tried(f"'{name}' half open", f"0 lost; read after {seconds:.1f} s")


@pytest.fixture
def patient_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the listener wait for an answer as long as a slow machine needs to send it."""
    monkeypatch.setattr(listener, "CALL_SECONDS", 600.0)


@pytest.mark.usefixtures("patient_listener")
async def test_mail_is_read_while_the_answer_about_the_gate_is_late(database: Database, tried: Tried) -> None:
    """The listener hears notifications, but does not know whether it has the gate, however long that lasts."""
    await prepare(database)
    longest = 0.0
    async with SilentProxy(database) as proxy, running(proxy.database) as service, session(database) as other:
        await asleep_again(database, service, other)
        assert proxy.hold_answers(LISTENER) == 1
        async with held_mail(other):
            await until(database, f"select not {GATE}")  # its answer is held
        for _ in range(3):
            await start(database, count=5)
            longest = max(longest, await until(database, "select not exists (select from noetl.inbox)"))
        assert service.listener is not None
        assert service.listener.reconnects == 1  # the answer does not count as lost
        await finish_all(database)
    assert await broken_invariants(database) == {}
    tried("a listener whose answers do not come", f"0 lost; read after {longest:.2f} s at most")


@pytest.mark.usefixtures("patient_listener")
async def test_a_gate_that_is_taken_too_late_is_released_during_work(database: Database) -> None:
    """Otherwise writers would send needless notifications."""
    await prepare(database)
    async with (
        SilentProxy(database) as proxy,
        running(proxy.database, sweep_seconds=600.0) as service,
        session(database) as other,
    ):
        await asleep_again(database, service, other)
        proxy.hold_answers(LISTENER)
        async with held_mail(other):
            await until(database, f"select not {GATE}")
        await until(database, "select not exists (select from noetl.inbox)")
        await slept_since(service)  # it asks for the gate before it sleeps, and the answer is held
        async with other.transaction():
            await other.execute("lock table noetl.inbox in access exclusive mode")
            await until(database, TAKES_MAIL)  # and cannot: there is work while the answer comes
            now = await other.fetchval("select clock_timestamp()")
            proxy.release_answers()
            await until(database, LET_GO_SINCE, now)
        await until(database, GATE_HELD)
        assert service.listener is not None
        assert service.listener.reconnects == 1  # this answer came late


async def slept_since(service: Service) -> None:
    """Wait until the daemon without a gate has looked for mail, tried to sleep, and looked again."""
    drains = service.metrics.total(metric.DRAINS)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while service.metrics.total(metric.DRAINS) < drains + 2:
            await leave_core()


async def asleep_again(database: Database, service: Service, other: Session[Any]) -> None:
    """Wait until the daemon has released and taken the gate again: then its statements are prepared.

    It has the answers too: one on its way would be held.
    """
    await until(database, GATE_HELD)
    async with held_mail(other):
        await until(database, f"select not {GATE}")
    await until(database, GATE_HELD)
    assert service.listener is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (service.listener.gate_held and service.listener.match_gate_held):
            await leave_core()


@asynccontextmanager
async def held_mail(other: Session[Any]) -> AsyncIterator[None]:
    """Keep the daemon awake with mail of an execution whose lock this session holds."""
    await other.execute("begin")
    execution_id = await other.fetchval("select noetl.start_execution('story')")
    await other.execute("select pg_advisory_lock($1)", execution_id)
    await other.execute("commit")
    try:
        yield
    finally:
        await other.execute("select pg_advisory_unlock($1)", execution_id)


async def test_mail_is_read_behind_a_proxy_that_drops_notifications(database: Database, tried: Tried) -> None:
    """Each sweep finds it."""
    await prepare(database)
    longest = 0.0
    async with SilentProxy(database, deaf=b"noetl-broker bell") as proxy, running(proxy.database, sweep_seconds=0.3):
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
    with embedded_postgres.start(settings={"max_notify_queue_pages": "64", "fsync": "off"}) as postgres:
        yield postgres


async def fill_queue(writer: asyncpg.Connection, share: float) -> None:
    """Notify an unused channel until this share of the queue is full."""
    while await writer.fetchval("select pg_notification_queue_usage()") < share:
        try:
            await writer.execute("select pg_notify('other', repeat('x', 3000) || g) from generate_series(1, 4) g")
        except asyncpg.ProgramLimitExceededError:
            return


async def test_a_full_notification_queue_fails_no_producer(small_queue: EmbeddedPostgres, tried: Tried) -> None:
    """A client listens and does not read. Producers commit, the daemon reads, and there are no dead letters."""
    database = Database(name="postgres", dsn=small_queue.dsn())
    await migrate(database)
    await prepare(database)
    other, writer = await connect(database, name="test"), await connect(database, name="test")
    try:
        await other.execute("set idle_in_transaction_session_timeout = 0; set transaction_timeout = 0; listen other")
        await other.execute("begin; select 1")
        async with running(database, sweep_seconds=0.3):
            await fill_queue(writer, 0.6)
            await until(database, f"select not {GATE}")
            await fill_queue(writer, 2.0)
            with pytest.raises(asyncpg.ProgramLimitExceededError):
                await writer.execute("select pg_notify('other', 'x') from generate_series(1, 9000)")
            await start(database, count=50)
            seconds = await finish_all(database)
            assert await value(database, "select pg_notification_queue_usage() > 0.9")
            await other.execute("rollback")
            await until(database, GATE_HELD)
        assert await broken_invariants(database) == {}
    finally:
        await asyncio.gather(other.close(), writer.close())
    tried("a full notification queue", f"no producer failed, 0 lost; 50 executions in {seconds:.1f} s")
