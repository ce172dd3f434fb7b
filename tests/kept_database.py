"""One database for the tests of a file, one after the other: emptied in between, with its connections kept.

A new database, its connections, and their first run of each large statement cost 0.1 s of processor time a test. A test
gets here what it gets from a new database: the migrated schema without rows. After a test that changed the schema, or
that wrote much, the next one does get a new database. So does each test with the mark `own_database`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from pytest_postgresql.executors import NoopExecutor

from tests.brokers import close_kept_connections
from tests.conftest import cloned
from tests.postgres import SCHEMA, Database, Server, psycopg_connect

SEEDS = ("period", "schema_version")  # the tables with rows of the migration
MOST_ROWS = 2_000  # that were deleted in a database: their traces make it slower
LOOP = pytest.mark.asyncio(loop_scope="module")
# Each statement that changes the schema leaves a row, whoever runs it.
WATCH = """
    create schema noetl_tests;
    create table noetl_tests.changed (tag text);
    create function noetl_tests.note() returns event_trigger language plpgsql security definer as
        'begin insert into noetl_tests.changed values (tg_tag); end';
    create event trigger noetl_tests on ddl_command_end execute function noetl_tests.note();"""
# Sessions that the test has closed may be about to end. Their advisory locks are waited for; any other lock means that
# one of them still works.
UNLOCKED = """
    for held in select * from pg_locks
        where database = (select oid from pg_database where datname = current_database()) and pid <> pg_backend_pid()
    loop
        if held.locktype <> 'advisory' then return null;
        elsif held.objsubid = 1 then
            perform pg_advisory_xact_lock((held.classid::bigint << 32) | held.objid::bigint);
        else perform pg_advisory_xact_lock(held.classid::bigint::int, held.objid::bigint::int);
        end if;
    end loop;"""
ANALYZED = """
    if exists (
      select from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      where n.nspname like {} and c.relkind in ('r', 'p') and c.reltuples > 0
    ) then return null; end if;"""
TABLES = """
    select relname from pg_class
    where relnamespace = %s::regnamespace and relkind in ('r', 'p') and not relispartition and relname <> all(%s)"""
# `id_seq` goes on: sessions have values of it in reserve.
SEQUENCES = (
    "select relname from pg_class where relnamespace = %s::regnamespace and relkind = 'S' and relname <> 'id_seq'"
)


class KeptDatabase:
    """A database and the session that empties it."""

    def __init__(self, database: Database, lender: Iterator[Database]) -> None:
        self.database = database
        self._lender = lender
        self._deleted = 0
        self._session = psycopg_connect(database, autocommit=True)
        try:
            self._prepare()
        except BaseException:
            self._session.close()
            raise

    def empty(self) -> bool:
        """Delete all rows that a test has written; returns whether the database is then as it was."""
        try:
            row = self._session.execute("select pg_temp.emptied()").fetchone()
        except psycopg.Error:
            return False
        deleted = row and row[0]
        if deleted is None:
            return False
        self._deleted += deleted
        return self._deleted < MOST_ROWS

    def close(self) -> None:
        """Let the database be dropped."""
        self._session.close()
        next(self._lender, None)

    def _prepare(self) -> None:
        """Note what the migration wrote, and make the function that empties."""
        execute = self._session.execute
        execute("set lock_timeout = '2s'")
        execute("set session_replication_role = replica")
        schema = sql.Identifier(SCHEMA)
        for name in SEEDS:
            execute(sql.SQL("create temp table {0} as table {1}.{0}").format(sql.Identifier(name), schema))
        tables = [sql.Identifier(SCHEMA, name) for (name,) in execute(TABLES, (SCHEMA, list(SEEDS)))]
        sequences = [sql.Literal(f"{SCHEMA}.{name}") for (name,) in execute(SEQUENCES, (SCHEMA,))]
        seeds = [(sql.Identifier(SCHEMA, name), sql.Identifier("pg_temp", name)) for name in SEEDS]
        body = [
            sql.SQL("declare n bigint; total bigint := 0; held record; begin"),
            sql.SQL(UNLOCKED),
            sql.SQL("if exists (select from noetl_tests.changed) then return null; end if;"),
            sql.SQL(ANALYZED).format(f"{SCHEMA}%"),
            *(_if_different(now, before) for now, before in seeds),
            *(_delete(table) for table in tables),
            *(sql.SQL("perform setval({}, 1, false);").format(name) for name in sequences),
            sql.SQL("return total; end"),
        ]
        text = sql.SQL("\n").join(body).as_string(self._session)
        execute(
            sql.SQL("create function pg_temp.emptied() returns bigint language plpgsql as {}").format(sql.Literal(text))
        )
        execute(WATCH)


def _if_different(now: sql.Composable, before: sql.Composable) -> sql.Composable:
    return sql.SQL(
        "if exists ((table {0} except table {1}) union all (table {1} except table {0})) then return null; end if;"
    ).format(now, before)


def _delete(table: sql.Composable) -> sql.Composable:
    return sql.SQL(
        "if exists (select from {0}) then delete from {0}; get diagnostics n = row_count; total := total + n; end if;"
    ).format(table)


def use_loop_of_file(items: list[pytest.Item], folder: Path) -> None:
    """Run the asynchronous tests that use the kept database in one event loop a file, which keeps its connections."""
    inside = f"{folder}{os.sep}"
    for item in items:
        if str(item.path).startswith(inside) and keeps_database(item) and item.get_closest_marker("asyncio"):
            item.add_marker(LOOP, append=False)


def keeps_database(item: Any) -> bool:
    """Whether a test uses the kept database."""
    return "database" in getattr(item, "fixturenames", ()) and item.get_closest_marker("own_database") is None


class Keeper:
    """Lends the tests of a file a database without rows."""

    def __init__(self, make: Callable[[], Iterator[Database]]) -> None:
        self._make = make
        self._kept: KeptDatabase | None = None

    @contextmanager
    def new(self) -> Iterator[Database]:
        """Lend a database to one test alone."""
        with contextmanager(self._make)() as database:
            yield database

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Database]:
        """Lend the database to a test; empty it afterwards, or let it go."""
        database = self.take()
        yield database
        await _end_tasks()
        if not self.empty():
            await close_kept_connections(database)
            self.close()

    def take(self) -> Database:
        """Give the database to a test, which empties it afterwards or lets it go."""
        if self._kept is None:
            lender = self._make()
            self._kept = KeptDatabase(next(lender), lender)
        return self._kept.database

    def empty(self) -> bool:
        """Delete all rows that a test has written; returns whether the database is then as it was."""
        return self._kept is not None and self._kept.empty()

    def close(self) -> None:
        """Let the database go."""
        if self._kept is not None:
            self._kept.close()
        self._kept = None


async def _end_tasks() -> None:
    """End the tasks that a test has left, as the end of its own event loop does."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@pytest.fixture(scope="module", name="_keeper")
def keeper(
    maintenance: psycopg.Connection, postgres_server: Server, migrated_template: NoopExecutor
) -> Iterator[Keeper]:
    """Keep a database while the tests of a file run."""
    keeper = Keeper(partial(cloned, maintenance, postgres_server, migrated_template.template_dbname))
    yield keeper
    keeper.close()


@pytest_asyncio.fixture(loop_scope="module", name="database")
async def kept_database(request: pytest.FixtureRequest, _keeper: Keeper) -> AsyncIterator[Database]:
    """Yield a migrated database without rows, mostly with the connections of the test before."""
    if keeps_database(request.node):
        async with _keeper.lend() as database:
            yield database
    else:
        with _keeper.new() as database:
            yield database
