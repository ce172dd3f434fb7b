"""The database that the tests of a file share is as a new one for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import psycopg
import pytest
from pytest_postgresql.executors import NoopExecutor

from tests.brokers import drain, execute, register, rows, start, value
from tests.conftest import cloned
from tests.kept_database import MOST_ROWS, Keeper
from tests.postgres import Database, Server
from tests.sessions import session

pytestmark = pytest.mark.own_database
GATE = "select pg_advisory_lock(7), pg_advisory_lock(8, -9)"


@pytest.fixture
def kept(maintenance: psycopg.Connection, postgres_server: Server, migrated_template: NoopExecutor) -> Iterator[Keeper]:
    """A keeper of this test alone."""
    keeper = Keeper(partial(cloned, maintenance, postgres_server, migrated_template.template_dbname))
    yield keeper
    keeper.close()


async def written(database: Database) -> list[int]:
    """Return the numbers of rows in tables that an execution writes, and the next number of its mail."""
    tables = ("catalog", "event", "execution", "execution_state", "inbox", "queue", "turn")
    counts = [await value(database, f"select count(*) from noetl.{table}") for table in tables]
    return [*counts, await value(database, "select last_value from noetl.inbox_mail_id_seq")]


async def test_rows_and_numbers_of_a_test_are_gone(kept: Keeper) -> None:
    """Tables and sequences are as after the migration; the sessions stay."""
    async with kept.lend() as first:
        before = await written(first)
        await register(first, "workflow:\n- {step: start, next: a}\n- {step: a, type: python, code: x}\n")
        await start(first)
        await drain(first)
        assert all(now > old for now, old in zip(await written(first), before, strict=True) if now != old)
        assert await written(first) != before
        sessions = await rows(first, "select pg_backend_pid()")
    async with kept.lend() as second:
        assert (second, await written(second), await rows(second, "select pg_backend_pid()")) == (
            first,
            before,
            sessions,
        )


@pytest.mark.parametrize(
    "change",
    [
        "alter table noetl.execution add column note text",
        "drop trigger if exists none_such on noetl.event",
        "create function noetl.own() returns int language sql return 1",
        "update noetl.schema_version set name = 'another' where version = 1",
        "delete from noetl.period",
        "insert into noetl.path_pause (path) values ('a'); analyze noetl.path_pause",
        f"insert into noetl.path_pause (path) select x::text from generate_series(1, {MOST_ROWS}) x",
    ],
)
async def test_a_changed_schema_or_many_rows_ask_for_a_new_database(kept: Keeper, change: str) -> None:
    """Also rows of the migration."""
    async with kept.lend() as first:
        await execute(first, change)
    async with kept.lend() as second:
        assert second != first


async def test_a_lock_of_a_session_that_ends_is_waited_for(kept: Keeper) -> None:
    """A test closes its sessions; the server notices a bit later."""
    async with kept.lend() as first, session(first) as own:
        await own.execute(GATE)
    async with kept.lend() as second:
        assert second == first
        locks = "select count(*) from pg_locks where locktype = 'advisory' and database is not null"
        assert await value(second, locks + " and objid in (7, 9)") == 0


async def test_a_session_that_still_works_asks_for_a_new_database(kept: Keeper) -> None:
    """Its rows could come later."""
    async with kept.lend() as first:
        lending = session(first)
        own = await lending.__aenter__()
        await own.execute("begin; insert into noetl.path_pause (path) values ('late')")
    await own.execute("rollback")
    await lending.__aexit__(None, None, None)
    async with kept.lend() as second:
        assert second != first
