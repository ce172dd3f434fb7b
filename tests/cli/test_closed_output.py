"""Commands whose output is closed or full report the output, never the database."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE_SECONDS, Command, decide, write_playbook
from tests.postgres import Database
from tests.processes import start_command

FULL = Path("/dev/full")
FETCH = """\
workflow:
  - {step: start, next: fetch}
  - {step: fetch, type: python, code: "def main(): return 1", next: end}
  - {step: end}
"""
SHOWING = pytest.mark.parametrize(
    "arguments",
    [
        ("events", "ID"), ("events", "ID", "--json"), ("events", "ID", "--follow"), ("status", "ID", "--watch"),
        ("status", "ID", "--watch", "--json"), ("start", "examples/fetch"), ("start", "examples/fetch", "--wait"),
        ("executions",), ("replay", "ID", "--story"),
    ],
    ids=" ".join,
)  # fmt: skip


@pytest.fixture
def started(command: Command, database: Database) -> int:
    """Start an execution and let a broker read its start: a job waits; give its id."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    started = int(command("start", "examples/fetch").stdout)
    decide(database)
    return started


def print_into(command: Command, output: int, started: int, arguments: tuple[str, ...]) -> tuple[int, str]:
    """Run a command whose standard output is this descriptor; give its exit code and its stderr."""
    words = [str(started) if word == "ID" else word for word in arguments]
    process = start_command(words, cwd=command.folder, env=command.environment, stdout=output)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    return process.wait(), err


@SHOWING
def test_a_closed_pipe_prints_no_error(command: Command, started: int, arguments: tuple[str, ...]) -> None:
    """As in `noetl-broker events ID | head -1`: the reader has seen enough."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert print_into(command, writing, started, arguments) == (1, "")
    finally:
        os.close(writing)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no disk that is always full")
@SHOWING
def test_a_full_disk_is_reported(command: Command, started: int, arguments: tuple[str, ...]) -> None:
    """The output is incomplete; database and program are well."""
    message = "noetl-broker: the output cannot be written: No space left on device\n"
    with FULL.open("wb") as full:
        assert print_into(command, full.fileno(), started, arguments) == (1, message)
