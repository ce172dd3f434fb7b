"""`status --watch`: the changes of an execution, for a pipe, a program and a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from noetl_broker.cli import output
from tests.cli.conftest import PATIENCE_SECONDS, Command, decide, rows, write_playbook
from tests.postgres import Database

FETCH = """\
workflow:
  - {step: start, next: fetch}
  - {step: fetch, type: python, code: "def main(): return 1", next: end}
  - {step: end}
"""


@pytest.fixture
def started(command: Command, database: Database) -> int:
    """Start an execution and let a broker read its start: a job waits; give its id."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    started = int(command("start", "examples/fetch").stdout)
    decide(database)
    return started


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


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux reports the closed terminal with this error
        return b""


def test_an_execution_that_has_ended_is_shown_once(command: Command, database: Database, started: int) -> None:
    """There is no change to wait for."""
    rows(database, "select noetl.cancel_execution(%s, 'wrong city')", started)
    decide(database)
    answer = command.run("status", started, "--watch")
    assert (answer.returncode, answer.stdout.splitlines()[-1]) == (1, "was cancelled: wrong city")


def test_a_narrow_terminal_shows_the_steps_whole() -> None:
    """Moments of today are times of day, of other days without the year; the progress of items folds."""
    now = datetime.now(UTC)
    items = "1,204 of 5,000, 79 failed, 31/s, about 2 min left"
    steps = output.Rows(
        ("step", "type", "status", "items", "visits", "started", "took"),
        [("fetch_weather", "python", "RUNNING", items, 1, now, "39.2 s"),
         ("send_all_reports", "python", "COMPLETED", "", 1, now - timedelta(days=3), "39.2 s")],
        frozenset({"items"}),
    )  # fmt: skip
    drawing = io.StringIO()
    Console(width=80, file=drawing).print(steps.drawn())
    lines = drawing.getvalue().splitlines()
    shown = " ".join(lines).split()
    assert max(map(len, lines)) <= 80
    assert {"fetch_weather", "send_all_reports", "COMPLETED", *items.split(), now.strftime("%H:%M:%SZ")} <= {*shown}
