"""How the tests run commands: in this process, or in processes of their own, on the test's database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from noetl_broker.cli.main import cli
from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA, application_name
from tests.brokers import drain
from tests.postgres import SCHEMA, SCHEMA_VARIABLE, Database, psycopg_connect
from tests.processes import Process, start_command
from tests.sessions import close_pools

PATIENCE_SECONDS = 120.0
NOWHERE = "postgresql://127.0.0.1:1/nowhere"  # no server listens there
TERMINATE = """
    select count(pg_terminate_backend(pid))
    from pg_stat_activity
    where datname = current_database() and application_name = %s"""
# A playbook of one job.
FETCH = """\
workflow:
  - {step: start, next: fetch}
  - {step: fetch, type: python, code: "def main(): return 1", next: end}
  - {step: end}
"""
_loops: list[asyncio.Runner] = []  # at most one: that of `decide` in the running test


def as_default(output: str) -> str:
    """Give an output as it is for the schema `noetl`: messages name another schema in each command."""
    if SCHEMA == DEFAULT_SCHEMA:
        return output
    return output.replace(f" --schema {SCHEMA}", "").replace(
        f"no broker serves schema {SCHEMA}", "no broker is connected to this database"
    )


def plain_environment() -> dict[str, str]:
    """Give this process's environment without settings of the broker, except the schema of the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NOETL_BROKER_", "PG"))}
    return kept | SCHEMA_VARIABLE


class Command:
    """Runs commands on one database, or on none."""

    def __init__(self, folder: Path, dsn: str | None) -> None:
        self.folder = folder
        # Tests run in parallel, so commands serve no port by default.
        alone = {"NOETL_BROKER_HEALTH_PORT": "0", "NOETL_BROKER_VERIFY_SECONDS": "0"}
        self.environment = plain_environment() | alone | ({"NOETL_BROKER_DSN": dsn} if dsn else {})
        self._processes: list[Process] = []

    def start(self, *arguments: str | int | Path, **environment: str) -> Process:
        """Start a command in its own process; the test ends it."""
        return self.start_with(subprocess.PIPE, subprocess.PIPE, *arguments, **environment)

    def start_with(self, stdout: int, stderr: int, *arguments: str | int | Path, **environment: str) -> Process:
        """Start a command that writes to these descriptors."""
        own = self.environment | environment
        process = start_command([*map(str, arguments)], cwd=self.folder, env=own, stdout=stdout, stderr=stderr)
        self._processes.append(process)
        return process

    def run(self, *arguments: str | int | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in its own process."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return subprocess.CompletedProcess(process.args, process.wait(), as_default(out), as_default(err))

    def __call__(self, *arguments: str | int | Path, **environment: str) -> Result:
        """Run a command in this process; output and exit code equal those of a process of its own."""
        wanted = self.environment | environment
        cleared: dict[str, str | None] = dict.fromkeys(os.environ.keys() - wanted.keys())
        with contextlib.chdir(self.folder):
            result = CliRunner().invoke(cli, [*map(str, arguments)], env=cleared | wanted, prog_name="noetl-broker")
        for stream in ("stdout_bytes", "stderr_bytes", "output_bytes"):
            setattr(result, stream, as_default(getattr(result, stream).decode()).encode())
        return result

    def json(self, *arguments: str | int | Path) -> Any:
        """Run a command in this process; give the JSON document that it prints."""
        return json.loads(self(*arguments, "--json").stdout)

    def refuses(self, cases: Iterable[tuple[str | tuple[str | int | Path, ...], int, str]], name: str = "") -> None:
        """Check calls of a command, or of any: each exits with its code, and an error with these words."""
        found = []
        for call, code, words in cases:
            arguments = call.split() if isinstance(call, str) else call
            answer = self(*name.split(), *arguments)
            last = f"\n{answer.stderr}".splitlines(keepends=True)[-1]
            if answer.exit_code != code or words not in last or not last.startswith(("noetl-broker: ", "Error: ")):
                found.append((call, answer.exit_code, answer.stderr))
        assert found == []

    def close(self) -> None:
        """End all processes that still run."""
        for process in self._processes:
            process.kill()
            process.communicate()


@pytest.fixture(autouse=True)
def _connections_of_decide() -> Iterator[None]:
    """Close the connections of `decide` with the test."""
    yield
    while _loops:
        _loops[0].run(close_pools())
        _loops.pop().close()


@pytest.fixture
def command(database: Database, tmp_path: Path) -> Iterator[Command]:
    """Yield the command line on this test's migrated database."""
    yield from _lend(Command(tmp_path, database.dsn))


@pytest.fixture
def bare_command(empty_database: Database, tmp_path: Path) -> Iterator[Command]:
    """Yield the command line on an empty database."""
    yield from _lend(Command(tmp_path, empty_database.dsn))


@pytest.fixture
def lone_command(tmp_path: Path) -> Iterator[Command]:
    """Yield the command line with no database."""
    yield from _lend(Command(tmp_path, None))


@pytest.fixture
def demo(lone_command: Command) -> Iterator[Command]:
    """Yield the command line in a folder that the account of Postgres can reach, also if root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="noetl-broker-demo-") as folder:
        lone_command.folder = Path(folder)
        lone_command.folder.chmod(0o755)
        yield lone_command


def _lend(command: Command) -> Iterator[Command]:
    yield command
    command.close()
    # A command in this process has bound the log to a stream that is closed now.
    structlog.reset_defaults()


def write_playbook(folder: Path, body: str, *, path: str = "examples/story", metadata: str = "") -> Path:
    """Write a playbook with this workload and workflow, and with more metadata; give its file."""
    name = path.rpartition("/")[2]
    head = f"apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {{name: {name}, path: {path}, {metadata}}}\n"
    file = folder / f"{name}.yaml"
    file.write_text(head + dedent(body), encoding="utf-8")
    return file


def begin(
    command: Command, database: Database, body: str, *options: str, path: str = "examples/story", metadata: str = ""
) -> int:
    """Register a playbook, start it and let a broker read its start; give the id of the execution."""
    registered = command("register", write_playbook(command.folder, body, path=path, metadata=metadata))
    assert registered.exit_code == 0, registered.stderr
    started = int(command("start", path, *options).stdout)
    decide(database)
    return started


@pytest.fixture
def started(command: Command, database: Database) -> int:
    """Start an execution of FETCH, whose job waits for a worker; give its id."""
    return begin(command, database, FETCH, path="examples/fetch")


def complete(database: Database, result: object = None) -> None:
    """Complete all jobs that wait with this result, and let a broker read that."""
    ended = "select noetl.complete_job(queue_id, 'w1', attempts, %s::jsonb) from noetl.lease_jobs('w1', 1000, 60)"
    rows(database, ended, json.dumps({} if result is None else result))
    decide(database)


def fail(database: Database, **error: object) -> None:
    """Fail all jobs that wait for good, and let a broker read that."""
    ended = "select noetl.fail_job(queue_id, 'w1', attempts, %s::jsonb, false) from noetl.lease_jobs('w1', 1000, 60)"
    rows(database, ended, json.dumps(error))
    decide(database)


def decide(database: Database) -> None:
    """Let a broker in this process decide all mail; its connections stay open until the test ends."""
    if not _loops:
        _loops.append(asyncio.Runner(loop_factory=asyncio.new_event_loop))
    _loops[0].run(drain(database))


def execute(database: Database, statement: str) -> None:
    """Run one statement without rows."""
    with psycopg_connect(database, autocommit=True) as connection:
        connection.execute(statement)


def rows(database: Database, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Give the rows of one statement."""
    with psycopg_connect(database, autocommit=True) as connection:
        return connection.execute(statement, arguments).fetchall()


def read_until(process: Process, pattern: str) -> str:
    """Read the log, or all output, up to the line that matches; kill a command that never prints it."""
    stream = process.stderr or process.stdout
    assert stream is not None
    too_late = threading.Timer(PATIENCE_SECONDS, process.kill)
    too_late.start()
    try:
        for line in stream:
            if re.search(pattern, line):
                return line
    finally:
        too_late.cancel()
    raise AssertionError(f"the command ended with {process.wait()} and never printed {pattern!r}")


def cut(database: Database, name: str) -> None:
    """Terminate the one connection of this name."""
    assert rows(database, TERMINATE, application_name(name, database.schema)) == [(1,)]


def until_job_is(status: str, database: Database) -> None:
    """Wait until a job is `leased` or `done`; the table tells of each change."""
    with psycopg_connect(database, autocommit=True) as connection:
        connection.execute("""
            create function notify_test() returns trigger language plpgsql as
                'begin notify changed_job; return null; end';
            create trigger notify_test after update on noetl.queue execute function notify_test();
            listen changed_job""")
        while not connection.execute("select from noetl.queue where status = %s", (status,)).fetchall():
            assert next(connection.notifies(timeout=PATIENCE_SECONDS), None) is not None
