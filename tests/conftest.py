"""Fixtures of all tests: one Postgres for the run, and a database for a test, cloned from a migrated template."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor

# A failed assertion of a helper shows its values too, and not only one of a test file.
pytest.register_assert_rewrite(*(f"tests.{path.stem}" for path in Path(__file__).parent.iterdir()))

from noetl_broker import embedded_postgres, logs
from noetl_broker.compiled_form import installed_form
from noetl_broker.store.connect.installation import OnCitus, migrate
from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA
from tests import summary
from tests.postgres import (
    BUCKET,
    CITUS,
    PINNED,
    SCHEMA_VARIABLE,
    Copies,
    Database,
    Server,
    psycopg_connect,
    start_server,
)
from tests.sessions import close_pools
from tests.shells import filled_shells, keep_citus_out, keep_shards_here, make_shards
from tests.store import noetl_server

_POSTGRES = pytest.StashKey[embedded_postgres.EmbeddedPostgres]()
_SERVER = "postgres_server"  # the key of its address, which the main process gives to those of pytest-xdist


def pytest_report_header() -> str:
    """Say which form of the program is tested."""
    return f"noetl-broker: the {installed_form()} form"


def pytest_configure() -> None:
    """Prepare the process for tests and for the commands that they start."""
    logs.configure(level="error", form="console")
    os.environ.update(SCHEMA_VARIABLE)
    # Under nohup or in the background of a shell, processes of tests would inherit that signals are ignored.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tables are shells, skip the tests that change them."""
    if PINNED:
        why = pytest.mark.skip(reason="the table is a shell here, and its shard has another name")
        for item in items:
            if item.get_closest_marker("changes_tables"):
                item.add_marker(why)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a test process of pytest-xdist the address of the server."""
    node.workerinput[_SERVER] = asdict(_server_of(node.config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Start two test processes for a core with `-n auto`: a part of a test's time is waiting."""
    return 2 * (os.cpu_count() or 1)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the run's Postgres, if this process has started it."""
    if (postgres := config.stash.get(_POSTGRES, None)) is not None:
        postgres.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was tested: the areas, and in `make chaos` the faults."""
    summary.write(terminalreporter)


def _server_of(config: pytest.Config) -> Server:
    """Return the run's Postgres; the first call starts it, unless there is a cluster of Citus."""
    if CITUS:
        return Server.at(CITUS)
    if _POSTGRES not in config.stash:
        config.stash[_POSTGRES] = start_server()
    return Server.of(config.stash[_POSTGRES])


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Server:
    """Return the run's Postgres."""
    given: dict[str, Any] = getattr(pytestconfig, "workerinput", {})
    return Server(**given[_SERVER]) if _SERVER in given else _server_of(pytestconfig)


def _migrate(*, tables: str = "", buckets: int | None = None, **connection: Any) -> None:
    """Migrate a template of the test databases; called once in each test process."""
    server = Server(**{key: connection[key] for key in ("host", "port", "user", "password")})
    database = server.database(connection["dbname"])
    if BUCKET:
        database, buckets = replace(database, schema=DEFAULT_SCHEMA, installation=None), 4
    with psycopg_connect(database, autocommit=True) as session:
        if CITUS:
            keep_shards_here(session, server)
        session.execute(tables)
    # A new event loop: the current one belongs to pytest-asyncio.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(migrate(database, buckets, OnCitus.YES if CITUS else OnCitus.NO))
        if PINNED and BUCKET and not CITUS:
            runner.run(make_shards(server.database(connection["dbname"]), int(BUCKET), 4))
    if CITUS:
        with psycopg.connect(server.database(server.maintenance_dbname).dsn, autocommit=True) as maintenance:
            keep_citus_out(maintenance, database.name)


migrated_template = factories.postgresql_noproc(depends_on="postgres_server", dbname="migrated", load=[_migrate])
buckets_template = factories.postgresql_noproc(
    depends_on="postgres_server", dbname="buckets", load=[partial(_migrate, buckets=4)]
)
noetl_template = factories.postgresql_noproc(
    depends_on="postgres_server", dbname="noetl", load=[partial(_migrate, tables=noetl_server.TABLES)]
)


@pytest.fixture(scope="session")
def copies(postgres_server: Server) -> Iterator[Copies]:
    """Yield a function that creates a database as a copy of a template, for a `with` block.

    The database is dropped before the next one is created, with all its connections: those of a test that has just
    ended are about to end. `file_copy` takes half the processor time of `wal_log`.
    """
    ended: list[str] = []
    dsn = postgres_server.database(postgres_server.maintenance_dbname).dsn

    def drop_ended() -> None:
        while ended:
            name = ended.pop()
            if CITUS:
                keep_citus_out(maintenance, name)
            maintenance.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    @contextmanager
    def copy(template: str) -> Iterator[Database]:
        drop_ended()
        database = postgres_server.database(f"test_{secrets.token_hex(8)}")
        create = sql.SQL("create database {} template {} strategy file_copy")
        maintenance.execute(create.format(sql.Identifier(database.name), sql.Identifier(template)))
        yield database
        ended.append(database.name)

    with psycopg.connect(dsn, autocommit=True) as maintenance:
        yield copy
        drop_ended()


@pytest.fixture
async def database(copies: Copies, migrated_template: NoopExecutor) -> AsyncIterator[Database]:
    """Yield a migrated database that only this test uses."""
    with copies(migrated_template.template_dbname) as database:
        yield database
        await close_pools()
        if PINNED and not CITUS:
            assert await filled_shells(database) == {}


@pytest.fixture
async def empty_database(copies: Copies) -> AsyncIterator[Database]:
    """Yield an empty database that only this test uses."""
    with copies("template0") as database:
        yield database
        await close_pools()


@pytest.fixture
async def installation(copies: Copies, buckets_template: NoopExecutor) -> AsyncIterator[Database]:
    """Yield the schema of an installation with four buckets, in a database that only this test uses."""
    with copies(buckets_template.template_dbname) as database:
        yield database
        await close_pools()


@pytest.fixture
async def noetl_database(copies: Copies, noetl_template: NoopExecutor) -> AsyncIterator[Database]:
    """Yield a migrated database of a NoETL server, which only this test uses."""
    with copies(noetl_template.template_dbname) as database:
        yield database
        await close_pools()
