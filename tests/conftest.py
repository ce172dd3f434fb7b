"""What all tests may ask for: a database of their own, migrated or empty, in milliseconds."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor

from noetl_broker import logs
from noetl_broker.store.migrate import migrate
from tests.chaos import table
from tests.postgres import Database, Landlord, Server, knock

_LANDLORD = pytest.StashKey[Landlord]()
_DOOR = "postgres_door"
_ordinals = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Appoint the landlord in the process that owns the run; it does nothing until it is asked."""
    logs.configure(level="error", form="console")
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup all that tests start would ignore it
    if not hasattr(config, "workerinput"):
        config.stash[_LANDLORD] = Landlord()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker process of pytest-xdist where the landlord's door is."""
    node.workerinput[_DOOR] = node.config.stash[_LANDLORD].door()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run's Postgres, if one was started."""
    landlord = config.stash.get(_LANDLORD, None)
    if landlord is not None:
        landlord.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print which faults were tried and what came of them, where any were."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    if told := table.lines(reports):
        terminalreporter.section("faults tried")
        terminalreporter.write_line("\n".join(told))


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Server:
    """Return where the run's Postgres is; the first to ask waits about half a second for its start."""
    landlord = pytestconfig.stash.get(_LANDLORD, None)
    if landlord is not None:
        return landlord.server()
    door: tuple[str, str] = pytestconfig.workerinput[_DOOR]  # type: ignore[attr-defined] # pytest-xdist puts it there
    return knock(door)


def _migrate_template(**connection: Any) -> None:
    """Migrate the template that each test's database is cloned from; called once in each test process."""
    server = Server(**{key: connection[key] for key in ("host", "port", "user", "password")})
    # A runner of its own loop, so that pytest-asyncio's current loop stays as it is.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(migrate(server.database(connection["dbname"]).dsn))


migrated_template = factories.postgresql_noproc(
    depends_on="postgres_server", dbname="migrated", load=[_migrate_template]
)


@pytest.fixture(scope="session")
def maintenance(postgres_server: Server) -> Iterator[psycopg.Connection]:
    """Yield a superuser's connection on which databases are created and dropped."""
    dsn = postgres_server.database(postgres_server.maintenance_dbname).dsn
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def database(
    maintenance: psycopg.Connection, postgres_server: Server, migrated_template: NoopExecutor
) -> Iterator[Database]:
    """Yield a migrated database that this test has to itself."""
    yield from lend(maintenance, postgres_server, migrated_template.template_dbname)


@pytest.fixture
def empty_database(maintenance: psycopg.Connection, postgres_server: Server) -> Iterator[Database]:
    """Yield a database with nothing in it that this test has to itself."""
    yield from lend(maintenance, postgres_server, postgres_server.template_dbname)


def lend(maintenance: psycopg.Connection, server: Server, template: str) -> Iterator[Database]:
    """Create a database as a copy of `template`, lend it, drop it and throw out who is still connected.

    `wal_log` copies through the log. `file_copy` is as fast on an idle server, but first makes a checkpoint of all that
    the other workers' tests have written.
    """
    database = server.database(f"test_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{next(_ordinals)}")
    name = sql.Identifier(database.name)
    create = sql.SQL("create database {} template {} strategy wal_log")
    maintenance.execute(create.format(name, sql.Identifier(template)))
    yield database
    maintenance.execute(sql.SQL("drop database {} with (force)").format(name))
