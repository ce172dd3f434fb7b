"""The output of commands: closed, full, or a terminal that shows the progress of long work."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE_SECONDS, Command
from tests.postgres import Database, psycopg_connect
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


def on_terminal(command: Command, *arguments: str) -> tuple[str, str, int]:
    """Run a command whose stderr is a terminal and whose stdout is a pipe; give both texts and the exit code."""
    ours, terminal = pty.openpty()
    process = command.start_with(subprocess.PIPE, terminal, *arguments, TERM="xterm", COLUMNS="100")
    os.close(terminal)
    seen = b""
    while piece := _read(ours):
        seen += piece
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    return out, seen.decode(), process.wait()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux reports the closed terminal with this error
        return b""


def test_a_progress_bar_counts_executions(command: Command, database: Database) -> None:
    """On stderr. The final output equals that of a pipe."""
    with psycopg_connect(database, autocommit=True) as connection:
        connection.execute(
            "insert into noetl.execution (execution_id, path) select g, 'a' from generate_series(1, 30) g"
        )
        connection.execute("insert into noetl.dead_letter select 1, g, 'a reason' from generate_series(1, 30) g")
    out, terminal_text, code = on_terminal(command, "reevaluate", "--all", "--yes", "--rate", "30")
    assert (out, code) == ("dead letters are put back: 30 of 30 executions\n", 0)
    assert [count for count in ("0/30", "30/30") if count not in terminal_text] == []


def test_a_replay_shows_its_progress_and_verify_a_spinner(command: Command, started: int) -> None:
    """The output goes to stdout. The duration of `verify` is unknown."""
    assert started
    summary, drawn, _ = on_terminal(command, "replay", "--all")
    assert summary.startswith("1 execution, 1 turns, 0 different (")
    assert ("1/1" in drawn, "turns" in drawn) == (True, False)
    out, drawn, code = on_terminal(command, "verify", "--all")
    assert (out.splitlines()[-1].endswith("all hold"), code) == (True, 0)
    assert "checking the invariants" in drawn
