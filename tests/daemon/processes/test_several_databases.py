"""`run` over several databases in one process: each is served, and a failing one stops no other."""

from __future__ import annotations

import json
import os
import re
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pytest_postgresql.executors import NoopExecutor

from tests.cli.conftest import PATIENCE_SECONDS, Command, execute, read_until, rows
from tests.postgres import SCHEMA_SUFFIX, Copies, Database, psycopg_connect

PLAYBOOK = """apiVersion: noetl.io/v1
kind: Playbook
metadata: {name: story, path: story}
workflow:
  - {step: start, next: end}
  - {step: end}
"""
INSERT = "insert into noetl.catalog (path, version, name, content) values ('story', 1, 'story', %s) returning 1"
NOWHERE = "postgresql://somebody:topsecret@127.0.0.1:1/nowhere"


@pytest.fixture
def databases(copies: Copies, migrated_template: NoopExecutor) -> Iterator[list[Database]]:
    """Yield three migrated databases, each with a playbook."""
    with ExitStack() as stack:
        found = [stack.enter_context(copies(migrated_template.template_dbname)) for _ in range(3)]
        for database in found:
            rows(database, INSERT, PLAYBOOK)
        yield found


def arguments(*dsns: str) -> list[str]:
    """Give the options that name them."""
    return [word for dsn in dsns for word in ("--dsn", dsn)]


def run_an_execution(database: Database) -> None:
    """Start one and wait for the broker's notification of its end."""
    with psycopg_connect(database, autocommit=True) as connection:
        connection.execute("listen noetl_end")
        row = connection.execute("select noetl.start_execution('story')").fetchone()
        assert row is not None
        while connection.execute(
            "select 1 from noetl.execution where execution_id = %s and status = 'RUNNING'", row
        ).fetchone():
            assert list(connection.notifies(timeout=PATIENCE_SECONDS, stop_after=1)) != []


@pytest.mark.parametrize("processes", [1, 2])
def test_one_broker_serves_three_databases(lone_command: Command, databases: list[Database], processes: int) -> None:
    """With `--processes` each process serves all of them."""
    dsns = arguments(*(database.dsn for database in databases))
    if processes > 1:  # from the environment: it has precedence over `dsn`
        named = {"NOETL_BROKER_DSN": NOWHERE, "NOETL_BROKER_DSNS": json.dumps(dsns[1::2])}
        process = lone_command.start("run", "--processes", processes, **named)
    else:
        process = lone_command.start("run", *dsns)
    read_until(process, "all processes are ready" if processes > 1 else "all databases are ready")
    for database in databases:
        run_an_execution(database)
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 0
    assert [rows(each, "select status from noetl.execution") for each in databases] == [[("COMPLETED",)]] * 3


def test_the_log_names_the_database_and_no_password(lone_command: Command, databases: list[Database]) -> None:
    """Only host and database name of the DSN."""
    process = lone_command.start(
        "run", *arguments(databases[0].dsn, NOWHERE), NOETL_BROKER_LOG_FORMAT="json", NOETL_BROKER_DRAIN_SECONDS="1"
    )
    lines = [read_until(process, '"event": "ready"'), read_until(process, "waiting for the database")]
    process.terminate()
    _, rest = process.communicate(timeout=PATIENCE_SECONDS)
    host = databases[0].dsn.rpartition("@")[2]
    assert [json.loads(line)["database"] for line in lines] == [
        host + SCHEMA_SUFFIX,
        "127.0.0.1:1/nowhere" + SCHEMA_SUFFIX,
    ]
    assert "topsecret" not in "".join([*lines, rest])


@pytest.mark.parametrize("fault", ["is not there", "has no schema"])
def test_a_failing_database_does_not_stop_the_others(
    lone_command: Command, databases: list[Database], fault: str
) -> None:
    """From the start: the others are served, and the process does not report ready."""
    broken = NOWHERE if fault == "is not there" else databases[2].dsn
    if fault == "has no schema":
        execute(databases[2], "drop schema noetl cascade")
    process = lone_command.start("run", *arguments(databases[0].dsn, broken, databases[1].dsn))
    read_until(process, "waiting for the database|a database is not served")
    for database in databases[:2]:
        run_an_execution(database)
    process.terminate()
    _, log = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert "all databases are ready" not in log


def test_a_lost_schema_does_not_stop_the_other_databases(
    lone_command: Command, databases: list[Database], tmp_path: Path
) -> None:
    """While it runs; the supervisor still gets messages."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address)
        heard.settimeout(PATIENCE_SECONDS)
        dsns = arguments(*(database.dsn for database in databases))
        process = lone_command.start("run", *dsns, NOTIFY_SOCKET=address, NOETL_BROKER_SWEEP_SECONDS="0.1")
        while not heard.recv(1000).startswith(b"READY=1"):
            pass
        execute(databases[1], "alter schema noetl rename to gone")  # a drop would wait for the broker's locks
        read_until(process, "a database is not served")
        while heard in select.select([heard], [], [], 0)[0]:
            heard.recv(1000)  # earlier messages
        run_an_execution(databases[0])
        run_an_execution(databases[2])
        assert heard.recv(1000).startswith(b"WATCHDOG=1")
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0


def test_a_broker_without_any_database_ends(lone_command: Command, databases: list[Database]) -> None:
    """With the code of the fault, as with one database. With --fail-fast one missing database is enough."""
    answer = lone_command.run("run", "--fail-fast", *arguments(databases[0].dsn, NOWHERE))
    assert (answer.returncode, "topsecret" in answer.stderr) == (69, False)
    for database in databases:
        execute(database, "drop schema noetl cascade")
    answer = lone_command.run("run", *arguments(*(database.dsn for database in databases)))
    assert answer.returncode == 78


def test_drain_prints_the_counts_of_each_database(lone_command: Command, databases: list[Database]) -> None:
    """One object for each, in the order of the options. It exits with the code of one that failed."""
    all_of_them = ("run", "--drain", *arguments(*(database.dsn for database in databases)))
    execute(databases[1], "select noetl.start_execution('story')")
    answer = lone_command.run(*all_of_them, "--json")
    assert answer.returncode == 0
    turns = [(found["database"], found["turns"]) for found in json.loads(answer.stdout)]
    assert turns == [(each.dsn.rpartition("@")[2] + SCHEMA_SUFFIX, int(each is databases[1])) for each in databases]
    execute(databases[0], "drop schema noetl cascade")
    execute(databases[1], "select noetl.start_execution('story')")
    assert lone_command.run(*all_of_them).returncode == 78
    assert rows(databases[1], "select status from noetl.execution") == [("COMPLETED",)] * 2


def test_a_parent_passes_no_password_as_an_argument(lone_command: Command, databases: list[Database]) -> None:
    """Everybody on the machine can read arguments."""
    process = lone_command.start("run", *arguments(*(each.dsn for each in databases)), "--processes", 2)
    line = read_until(process, "started a process")
    found = re.search(r"process_id=(\d+)", line)
    assert found is not None
    arguments_of_child = Path(f"/proc/{found[1]}/cmdline").read_bytes()
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 0
    assert b"postgresql://" not in arguments_of_child
    assert os.fsencode(databases[0].name) not in arguments_of_child
