"""How the tests run commands: each in a process of its own on the test's database, or in this process where quick."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import psycopg
import pytest
import structlog
from click.testing import CliRunner, Result

from noetl_broker.cli.group import cli
from tests.brokers import drain
from tests.postgres import Database

PATIENCE_SECONDS = 30.0


def plain_environment() -> dict[str, str]:
    """Give this process' environment without what would configure a command."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("NOETL_BROKER_", "PG"))}


class Command:
    """Runs the command line on one database (or, without one, on none)."""

    def __init__(self, folder: Path, dsn: str | None) -> None:
        self.folder = folder
        # Tests run beside each other, and a port can be had once: those that want one choose it.
        alone = {"NOETL_BROKER_HEALTH_PORT": "0", "NOETL_BROKER_VERIFY_SECONDS": "0"}
        self.environment = plain_environment() | alone | ({"NOETL_BROKER_DSN": dsn} if dsn else {})
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str | int | Path, **environment: str) -> subprocess.Popen[str]:
        """Start a command in a process of its own; it is ended with the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "noetl_broker", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def run(self, *arguments: str | int | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in a process of its own."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def __call__(self, *arguments: str | int | Path) -> Result:
        """Run a command in this process: what it prints and its exit code are those of a process of its own."""
        cleared: dict[str, str | None] = dict.fromkeys(os.environ.keys() - self.environment.keys())
        return CliRunner().invoke(cli, [*map(str, arguments)], env=cleared | self.environment, prog_name="noetl-broker")

    def close(self) -> None:
        """End what still runs."""
        for process in self._processes:
            process.kill()
            process.communicate()


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
    """Yield the command line in a folder that the account of Postgres can reach, also where root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="noetl-broker-demo-") as folder:
        lone_command.folder = Path(folder)
        lone_command.folder.chmod(0o755)
        yield lone_command


def _lend(command: Command) -> Iterator[Command]:
    yield command
    command.close()
    # A command run in this process has set the log to a stream that is closed by now.
    structlog.reset_defaults()


def write_playbook(folder: Path, body: str, *, path: str = "examples/story") -> Path:
    """Write a playbook with this workload and workflow; give its file."""
    name = path.rpartition("/")[2]
    head = f"apiVersion: noetl.io/v1\nkind: Playbook\nmetadata: {{name: {name}, path: {path}}}\n"
    file = folder / f"{name}.yaml"
    file.write_text(head + dedent(body), encoding="utf-8")
    return file


def decide(database: Database) -> None:
    """Let a broker in this process decide on what is waiting: faster than a process of its own."""
    asyncio.run(drain(database))


def execute(database: Database, statement: str) -> None:
    """Run one statement that gives no rows."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(statement)


def rows(database: Database, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Give the rows of one statement."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        return connection.execute(statement, arguments).fetchall()
