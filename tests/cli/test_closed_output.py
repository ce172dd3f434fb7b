"""Commands whose output is closed or full report the output, never the database."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE_SECONDS, Command
from tests.processes import start_command

FULL = Path("/dev/full")
SHOWING = (
    "events ID", "events ID --json", "events ID --follow", "status ID --watch", "status ID --watch --json",
    "start examples/fetch", "start examples/fetch --wait", "executions", "replay ID --story",
)  # fmt: skip


def print_into(command: Command, output: int, started: int) -> set[tuple[int, str]]:
    """Run commands whose standard output is this descriptor; give their exit codes and their stderr."""
    found = set()
    for call in SHOWING:
        words = call.replace("ID", str(started)).split()
        process = start_command(words, cwd=command.folder, env=command.environment, stdout=output)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
        found.add((process.wait(), err))
    return found


def test_a_closed_pipe_prints_no_error(command: Command, started: int) -> None:
    """As in `noetl-broker events ID | head -1`: the reader has seen enough."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert print_into(command, writing, started) == {(1, "")}
    finally:
        os.close(writing)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no disk that is always full")
def test_a_full_disk_is_reported(command: Command, started: int) -> None:
    """The output is incomplete; database and program are well."""
    message = "noetl-broker: the output cannot be written: No space left on device\n"
    with FULL.open("wb") as full:
        assert print_into(command, full.fileno(), started) == {(1, message)}
