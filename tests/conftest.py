"""Fixtures of all tests: a database for one test, migrated or empty, in milliseconds."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor

from noetl_broker import logs
from noetl_broker.form import installed_form
from noetl_broker.store.migrations import migrate
from tests import copied_data, known_types
from tests.chaos import fault_table
from tests.garbage import freeze
from tests.postgres import SCHEMA_VARIABLE, Database, Server, ServerOwner, ask_owner, psycopg_connect
from tests.store import noetl_server

_OWNER = pytest.StashKey[ServerOwner]()
_ADDRESS = "postgres_owner"
LONG = (
    "tests/browser", "tests/simulation", "tests/packaging", "tests/chaos", "tests/deploy", "tests/worker", "tests/cli",
    "tests/daemon", "tests/template/test_escapes.py",
)  # fmt: skip
_ordinals = itertools.count(1)
_ended: list[str] = []  # names of databases whose test is over


def pytest_report_header() -> str:
    """Say which form of the program is tested."""
    return f"noetl-broker: the {installed_form()} form"


def pytest_configure(config: pytest.Config) -> None:
    """Create the server's owner in the process that owns the run; it starts no server yet."""
    logs.configure(level="error", form="console")
    os.environ.update(SCHEMA_VARIABLE)
    known_types.remember()
    # Images of Python often set it. Then each process of a test compiles the program anew: 0.2 s.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Under nohup or in the background of a shell, processes of tests would inherit that signals are ignored.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        config.stash[_OWNER] = ServerOwner()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker process of pytest-xdist the address of the server's owner."""
    node.workerinput[_ADDRESS] = node.config.stash[_OWNER].address()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Start two test processes for a core with `-n auto`: a part of a test's time is waiting."""
    cores = os.process_cpu_count() if sys.version_info >= (3, 13) else os.cpu_count()
    return 2 * (cores or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files that take long, so that no test process ends long after the others."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage meanwhile: there is little, and each look at all modules and tests takes long."""
    gc.disable()
    try:
        with _one_compiles():
            return (yield)
    finally:
        gc.enable()


@contextmanager
def _one_compiles() -> Iterator[None]:
    """Let one process collect first where the tests are not compiled: it compiles them for all."""
    if sys.dont_write_bytecode or _are_compiled():
        yield
        return
    with Path(__file__).open("rb") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _are_compiled():
                fcntl.flock(lock, fcntl.LOCK_UN)
        yield


def _are_compiled() -> bool:
    """Whether the last test of this folder is, for this Python."""
    return any(Path(__file__).parent.glob(f"__pycache__/test_waits.{sys.implementation.cache_tag}-pytest-*.pyc"))


def pytest_collection_finish() -> None:
    """Leave the collected tests out of garbage collections."""
    freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the run's Postgres, if a test started it."""
    copied_data.remove()
    owner = config.stash.get(_OWNER, None)
    if owner is not None:
        owner.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print a table of the tried faults and their outcomes, if there were any."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    if lines := fault_table.lines(reports):
        terminalreporter.section("faults tried")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Server:
    """Return the run's Postgres; the first test that asks waits half a second for its start."""
    owner = pytestconfig.stash.get(_OWNER, None)
    if owner is not None:
        return owner.server()
    address: tuple[str, str] = pytestconfig.workerinput[_ADDRESS]  # type: ignore[attr-defined] # pytest-xdist puts it there
    return ask_owner(address)


def _migrate_template(**connection: Any) -> None:
    """Migrate the template of the test databases; called once in each test process."""
    server = Server(**{key: connection[key] for key in ("host", "port", "user", "password")})
    # A new event loop: the current one belongs to pytest-asyncio.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(migrate(server.database(connection["dbname"])))


def _migrate_noetl_template(**connection: Any) -> None:
    """Migrate a database with the tables of a NoETL server; called once in each test process that needs it."""
    server = Server(**{key: connection[key] for key in ("host", "port", "user", "password")})
    database = server.database(connection["dbname"])
    with psycopg_connect(database, autocommit=True) as session:
        session.execute(noetl_server.TABLES)
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(migrate(database))


migrated_template = factories.postgresql_noproc(
    depends_on="postgres_server", dbname="migrated", load=[_migrate_template]
)
noetl_template = factories.postgresql_noproc(
    depends_on="postgres_server", dbname="noetl_migrated", load=[_migrate_noetl_template]
)


@pytest.fixture(scope="session")
def maintenance(postgres_server: Server) -> Iterator[psycopg.Connection]:
    """Yield a superuser's connection, to create and drop databases."""
    dsn = postgres_server.database(postgres_server.maintenance_dbname).dsn
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def database(
    maintenance: psycopg.Connection, postgres_server: Server, migrated_template: NoopExecutor
) -> Iterator[Database]:
    """Yield a migrated database that only this test uses."""
    yield from cloned(maintenance, postgres_server, migrated_template.template_dbname)


@pytest.fixture
def empty_database(maintenance: psycopg.Connection, postgres_server: Server) -> Iterator[Database]:
    """Yield an empty database that only this test uses."""
    yield from cloned(maintenance, postgres_server, postgres_server.template_dbname)


@pytest.fixture
def noetl_database(
    maintenance: psycopg.Connection, postgres_server: Server, noetl_template: NoopExecutor
) -> Iterator[Database]:
    """Yield a migrated database of a NoETL server, which only this test uses."""
    yield from cloned(maintenance, postgres_server, noetl_template.template_dbname)


def cloned(maintenance: psycopg.Connection, server: Server, template: str) -> Iterator[Database]:
    """Create a database as a copy of `template`, yield it, and drop it before the next one with all its connections.

    `file_copy` takes half the processor time of `wal_log`. A database that is dropped at once waits 100 ms for sessions
    that are about to end.
    """
    while _ended:
        maintenance.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(_ended.pop())))
    database = server.database(f"test_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{next(_ordinals)}")
    create = sql.SQL("create database {} template {} strategy file_copy")
    maintenance.execute(create.format(sql.Identifier(database.name), sql.Identifier(template)))
    yield database
    _ended.append(database.name)
