"""`status --watch`: the changes of an execution, for a pipe, a program and a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
from collections.abc import Iterable

from tests.cli.conftest import PATIENCE_SECONDS, Command, decide, rows
from tests.postgres import Database


def until(lines: Iterable[str], word: str) -> list[str]:
    """Read lines up to the one with this word."""
    seen = []
    for line in lines:
        seen.append(line)
        if word in line:
            return seen
    raise AssertionError(f"no line has {word!r}: {seen}")


def lease(database: Database) -> int:
    """Lease the one job."""
    [(queue_id,)] = rows(database, "select queue_id from noetl.lease_jobs('w1', 1, 60)")
    return int(queue_id)


def without_times(line: str) -> str:
    """Give a line without times and durations."""
    return " ".join(line.split("  ", 1)[1].partition("  after")[0].split())


def test_a_pipe_gets_a_line_for_each_change(command: Command, database: Database, started: int) -> None:
    """It ends with the execution and its result."""
    watching = command.start("status", started, "--watch")
    assert watching.stdout is not None
    first = until(watching.stdout, "job of fetch  queued")
    queue_id = lease(database)
    second = until(watching.stdout, "leased")
    rows(database, "select noetl.complete_job(%s, 'w1', 1, '{\"n\": 1}')", queue_id)
    decide(database)
    rest, _ = watching.communicate(timeout=PATIENCE_SECONDS)
    assert [without_times(line) for line in (*first, *second)] == [
        f"execution {started} RUNNING",
        "step start COMPLETED",
        "step fetch RUNNING",
        "job of fetch queued",
        "job of fetch leased by w1",
    ]
    assert {without_times(line) for line in rest.splitlines()[:-2]} >= {
        f"execution {started} COMPLETED",
        "step fetch COMPLETED",
    }
    assert (rest.splitlines()[-1], watching.returncode) == ('result: {"n": 1}', 0)


def test_watch_json_prints_a_document_for_each_change(command: Command, database: Database, started: int) -> None:
    """The document of `status --json`. A failure also sets the exit code."""
    watching = command.start("status", started, "--watch", "--json")
    assert watching.stdout is not None
    first = json.loads(watching.stdout.readline())
    queue_id = lease(database)
    rows(database, "select noetl.fail_job(%s, 'w1', 1, '{\"message\": \"disk full\"}', false)", queue_id)
    decide(database)
    out, _ = watching.communicate(timeout=PATIENCE_SECONDS)
    last = json.loads(out.splitlines()[-1])
    assert [first["status"], last["status"], last["error"]["message"]] == ["RUNNING", "FAILED", "disk full"]
    assert watching.returncode == 1
    # It has ended, so there is no change to wait for.
    again = command("status", started, "--watch")
    assert (again.exit_code, "disk full" in again.stdout) == (1, True)


def test_a_terminal_gets_one_picture_that_changes(command: Command, database: Database, started: int) -> None:
    """It is redrawn, and the last one stays. Messages of others move no cursor."""
    ours, terminal = pty.openpty()
    process = command.start_with(
        terminal, terminal, "status", started, "--watch", TERM="xterm", COLUMNS="120", LINES="40"
    )
    os.close(terminal)
    seen = b""
    while b"waits for a worker" not in seen:
        seen += os.read(ours, 65_536)
    queue_id = lease(database)
    while b"lease ends in" not in seen:
        seen += os.read(ours, 65_536)
    rows(database, "select noetl.fail_job(%s, 'w1', 1, '{\"message\": \"disk \\u001b[5A full\"}', false)", queue_id)
    decide(database)
    while (piece := _read(ours)) != b"":
        seen += piece
    assert process.wait(PATIENCE_SECONDS) == 1
    assert rb"failed in step fetch: disk \x1b[5A full" in seen
    assert b"\x1b[1A" in seen  # the next picture replaces this one

    # A narrow terminal shows whole steps, and of moments of today the time of day.
    ours, terminal = pty.openpty()
    process = command.start_with(terminal, terminal, "status", started, TERM="dumb", COLUMNS="80")
    os.close(terminal)
    text = b"".join(iter(lambda: _read(ours), b"")).decode()
    assert process.wait(PATIENCE_SECONDS) == 0
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert re.search(r"\n +fetch +python +FAILED.* \d\d:\d\d:\d\dZ", text), text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux reports the closed terminal with this error
        return b""
