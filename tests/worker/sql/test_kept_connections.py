"""Connections of SQL steps between two steps: a step finds what it would find on a new connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from noetl_broker.worker.idle_connections import IdleConnections
from noetl_broker.worker.sql import run as run_module
from noetl_broker.worker.sql.bounded_connection import BoundedConnection
from noetl_broker.worker.sql.run import SqlStatement, SqlTarget, StatementFault, run_statements
from tests.chaos.silent_proxy import SilentProxy
from tests.chaos.under_load import leave_core
from tests.postgres import Database
from tests.sessions import session
from tests.worker.test_loop import Queue, queue, working

__all__ = ["queue"]
Idle = IdleConnections[BoundedConnection]
PID = "select pg_backend_pid() as it"


@pytest.fixture
async def idle() -> AsyncIterator[Idle]:
    """Keep connections for a test."""
    kept = Idle(most=4)
    yield kept
    kept.close()


async def given(idle: Idle, where: Database | SqlTarget, *statements: str, largest_bytes: int = 100_000) -> Any:
    """Run one step; give the first value of its last rows, None without rows."""
    target = where if isinstance(where, SqlTarget) else SqlTarget(dsn=where.dsn)
    script = [SqlStatement(sql=sql) for sql in statements]
    results = await run_statements(target, script, largest_bytes=largest_bytes, idle=idle)
    return next((value for row in results[-1].rows for value in row.values()), None)


async def test_the_next_step_gets_the_connection(idle: Idle, empty_database: Database) -> None:
    """Two steps at a time get two."""
    first = await given(idle, empty_database, PID)
    assert await given(idle, empty_database, PID) == first
    at_once = await asyncio.gather(*(given(idle, empty_database, "select pg_sleep(0.01)", PID) for _ in range(2)))
    assert len({first, *at_once}) == 2


@pytest.fixture
async def login(empty_database: Database) -> AsyncIterator[SqlTarget]:
    """Give a login that takes the role of its owner by default."""
    name, owner = f"{empty_database.name}_login", f"{empty_database.name}_owner"
    parts = urlsplit(empty_database.dsn)
    address = {"host": parts.hostname, "port": parts.port, "database": empty_database.name}
    async with session(empty_database) as admin:
        await admin.execute(f"create role {owner}; create role {name} login password 'hush' in role {owner}")
        await admin.execute(f"alter role {name} set role = {owner}; grant create on schema public to {owner}")
        yield SqlTarget(parts={**address, "user": name, "password": "hush"})
        await admin.execute(f"drop owned by {name}, {owner}; drop role {name}; drop role {owner}")


@pytest.mark.parametrize("other", [{"database": "postgres"}, {"user": "login"}, {}])
async def test_another_target_gets_a_connection_of_its_own(
    idle: Idle, empty_database: Database, login: SqlTarget, other: dict[str, str]
) -> None:
    """Another database, login or search path."""
    first = await given(idle, empty_database, PID)
    parts = {key: login.parts[key] for key in ("user", "password")} if "user" in other else other
    schemas = () if other else ("public",)
    assert await given(idle, SqlTarget(dsn=empty_database.dsn, parts=parts, schemas=schemas), PID) != first


async def test_a_changed_password_gets_a_new_connection(idle: Idle, empty_database: Database, login: SqlTarget) -> None:
    """The old one is refused by the server from then on."""
    first = await given(idle, login, PID)
    async with session(empty_database) as admin:
        await admin.execute(f"alter role {login.parts['user']} password 'new'")
    changed = SqlTarget(parts={**login.parts, "password": "new"})
    assert await given(idle, changed, PID) != first
    with pytest.raises(StatementFault, match="28P01"):
        await given(idle, SqlTarget(parts={**login.parts, "password": "wrong"}), PID)


STATE = {
    "setting": ("set work_mem = '1MB'", "show work_mem"),
    "setting of the program": ("set my.tenant = 'a'", "select nullif(current_setting('my.tenant', true), '')"),
    "search path": ("set search_path = pg_catalog", "show search_path"),
    "characteristics": ("set session characteristics as transaction read only", "show transaction_read_only"),
    "role": ("set role none", "select current_user::text"),
    "authorization": ("set session authorization pg_monitor", "select session_user::text"),
    "temporary table": ("create temp table t (a int)", "select to_regclass('pg_temp.t')::text"),
    "temporary function": (
        "create function pg_temp.f() returns int language sql return 1", "select to_regproc('pg_temp.f')::text"
    ),
    "prepared statement": ("prepare p as select 1", "select count(*) from pg_prepared_statements where name = 'p'"),
    "listen": ("listen news", "select count(*) from pg_listening_channels()"),
    "advisory lock": (
        "select pg_advisory_lock(7)",
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    ),
    "cursor": ("declare c cursor with hold for select 1", "select count(*) from pg_cursors where name = 'c'"),
    "sequence": (
        "create temp sequence s; select nextval('s')", "select currval(to_regclass('s'))"
    ),
    "open transaction": ("begin; create table kept_open (a int)", "select to_regclass('kept_open')::text"),
    "failed transaction": ("begin; savepoint s", "select now() = statement_timestamp()"),
}  # fmt: skip


async def test_what_a_step_leaves_in_its_session_is_gone(
    idle: Idle, empty_database: Database, login: SqlTarget
) -> None:
    """As on a new connection. An open transaction ends with its connection."""
    fresh = Idle(most=1, idle_seconds=0)
    left = {}
    for name, (leave, look) in STATE.items():
        where = empty_database if name == "authorization" else login  # a superuser may be anybody
        expected = await given(fresh, where, look)
        first = await given(idle, where, PID)
        await given(idle, where, *leave.split("; "))
        found = await given(idle, where, look)
        kept = await given(idle, where, PID) == first
        if (found, kept) != (expected, "transaction" not in name):
            left[name] = (found, expected, kept)
    assert left == {}


async def test_what_no_reset_removes_is_left_in_another_session(idle: Idle, empty_database: Database) -> None:
    """A temporary replication slot ends with its session, so that is not kept."""
    first, slot = await given(idle, empty_database, PID), empty_database.name[-40:]
    leave = f"select pg_create_physical_replication_slot('{slot}', true, true)"
    assert await given(idle, empty_database, leave, PID) != first
    assert await given(idle, empty_database, PID) == first


async def test_a_type_that_changed_is_read_as_it_is(idle: Idle, empty_database: Database) -> None:
    """The driver remembers the types of a connection."""
    await given(idle, empty_database, "create type pair as (a int, b int)")
    assert await given(idle, empty_database, "select (1, 2)::pair as it") == {"a": 1, "b": 2}
    await given(idle, empty_database, "alter type pair rename attribute b to c")
    assert await given(idle, empty_database, "select (1, 2)::pair as it") == {"a": 1, "c": 2}


async def test_the_limit_of_rows_begins_anew(idle: Idle, empty_database: Database) -> None:
    """In the protocol, too."""
    for _ in range(3):
        await given(idle, empty_database, "select repeat('x', 30000)", largest_bytes=40_000)
    with pytest.raises(StatementFault, match="larger than the limit"):
        await given(idle, empty_database, "select repeat('x', 500000)", largest_bytes=40_000)


async def test_a_database_that_was_used_can_be_dropped(idle: Idle, empty_database: Database) -> None:
    """The connections to it are closed first."""
    name = f"{empty_database.name}_other"
    await given(idle, empty_database, f"create database {name}")
    await given(idle, SqlTarget(dsn=empty_database.dsn, parts={"database": name}), PID)
    await given(idle, empty_database, f"drop database {name}")


@pytest.mark.parametrize("sql", ["select 1/0", "select repeat('x', 200000)"])
async def test_a_fault_closes_the_connection(idle: Idle, empty_database: Database, sql: str) -> None:
    """Of the statement, and of its rows."""
    first = await given(idle, empty_database, PID)
    with pytest.raises(StatementFault):
        await given(idle, empty_database, sql)
    assert await given(idle, empty_database, PID) != first


async def test_a_cancel_closes_the_connection(idle: Idle, empty_database: Database) -> None:
    """Its statement has ended; the cancel meets no statement of the next step."""
    first = await given(idle, empty_database, PID)
    running = asyncio.create_task(given(idle, empty_database, "select pg_sleep(60)"))
    async with session(empty_database) as own:
        while not await own.fetchval("select wait_event = 'PgSleep' from pg_stat_activity where pid = $1", first):
            await own.execute("select pg_stat_clear_snapshot()")
            await leave_core()
        running.cancel()
        await asyncio.wait([running])
        assert await given(idle, empty_database, PID) != first
        assert await own.fetchval("select state from pg_stat_activity where pid = $1", first) != "active"


@pytest.mark.parametrize("alone", [(), ("commit",)])
async def test_a_connection_that_the_server_ended_is_replaced(
    idle: Idle, empty_database: Database, alone: tuple[str, ...]
) -> None:
    """Before the step's statements are sent."""
    first = await given(idle, empty_database, PID)
    async with session(empty_database) as own:
        await own.fetchval("select pg_terminate_backend($1, 5000)", first)
    assert await given(idle, empty_database, *alone, PID) != first


@pytest.mark.parametrize("alone", [(), ("commit",)])
async def test_a_silent_connection_is_replaced(
    idle: Idle, empty_database: Database, alone: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server does not answer before the step's statements."""
    async with SilentProxy(empty_database) as proxy:
        first = await given(idle, proxy.database, PID)
        monkeypatch.setattr(run_module, "CALL_SECONDS", 1.0)
        assert proxy.drop_all(b"noetl-broker worker step") == 1
        assert await given(idle, proxy.database, *alone, PID) != first


async def test_a_worker_that_stops_closes_its_connections(database: Database, queue: Queue) -> None:
    """While it runs, they wait for the next job."""
    count = "select count(*) from pg_stat_activity where application_name = 'noetl-broker worker step' and datname = $1"
    async with session(database) as own:
        async with working(database.dsn):
            await queue.until(await queue.put_one({"type": "postgres", "command": "select 1"}), "done")
            assert await own.fetchval(count, database.name) == 1
        while await own.fetchval(count, database.name):  # the server ends a session a moment later
            await own.execute("select pg_stat_clear_snapshot()")
            await leave_core()
