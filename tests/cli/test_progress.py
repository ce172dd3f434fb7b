"""Long work on a terminal: it shows that it goes on, and leaves nothing of that behind."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import psycopg

from tests.cli.conftest import PATIENCE_SECONDS, Command
from tests.postgres import Database


def on_terminal(command: Command, *arguments: str) -> tuple[str, str, int]:
    """Run a command whose stderr is a terminal and whose stdout is a pipe; gives both texts and the exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "noetl_broker", *arguments],
        env=command.environment | {"TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, text=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while piece := _read(ours):
        seen += piece
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    return out, seen.decode(), process.returncode


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux' end of a terminal that nobody writes to any more
        return b""


def test_many_that_come_back_are_counted_while_they_do(command: Command, database: Database) -> None:
    """On stderr; what is printed at the end is the same as in a pipe."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(
            "insert into noetl.execution (execution_id, path) select g, 'a' from generate_series(1, 30) g"
        )
        connection.execute("insert into noetl.dead_letter select 1, g, 'a reason' from generate_series(1, 30) g")
    out, told, code = on_terminal(command, "reevaluate", "--all", "--yes", "--rate", "30")
    assert (out, code) == ("mail is put back: 30 of 30 executions\n", 0)
    assert [count for count in ("0/30", "30/30") if count not in told] == []


def test_a_check_of_all_shows_that_it_goes_on(command: Command) -> None:
    """Nobody knows how long it takes."""
    out, told, code = on_terminal(command, "verify", "--all")
    assert (out.splitlines()[-1].endswith("all hold"), code) == (True, 0)
    assert "holding the tables against the invariants" in told
