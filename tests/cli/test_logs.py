"""The command `logs`: what steps printed, by time, also while they run."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.conftest import Command, begin, cut, decide, execute, rows
from tests.cli.test_status_watch import until
from tests.postgres import Database

STORY = """\
workflow:
  - {step: start, next: [fetch, load]}
  - {step: fetch, type: python, code: "def main(): pass", next: end}
  - {step: load, type: http, url: "http://localhost", next: end}
  - {step: end}
"""
LEASE = "select node_name, queue_id from noetl.lease_jobs('w', 9) order by 1"
LOG = "select noetl.log_job(%s, 'w', %s, %s, %s, %s)"


@pytest.fixture
def started(command: Command, database: Database) -> int:
    """Start an execution with two jobs."""
    return begin(command, database, STORY)


@pytest.fixture
def jobs(database: Database, started: int) -> dict[str, int]:
    """Lease the jobs; give their ids by step."""
    assert started
    return dict(rows(database, LEASE))


def log(
    database: Database, job: int, text: str, level: str = "info", *, attempt: int = 1, at: int | None = None
) -> None:
    """Log a message of a job."""
    assert rows(database, LOG, job, attempt, level, text, at) == [(True,)]


def shown(output: str) -> list[str]:
    """Give the lines without their times."""
    return [re.sub(r"^[-0-9]{10} [:.0-9]{12}Z  ", "", line) for line in output.splitlines()]


def test_lines_name_their_step_their_attempt_and_their_level(
    command: Command, database: Database, started: int, jobs: dict[str, int]
) -> None:
    """By time. A line in several parts is one, and control characters are visible."""
    log(database, jobs["fetch"], "one\ntw", at=0)
    log(database, jobs["load"], "careful\x1b[31m\ttab\r", "warning")
    log(database, jobs["fetch"], "o\nthree\nfour", at=6)
    execute(database, "update noetl.queue set attempts = 2 where node_name = 'fetch'")
    log(database, jobs["fetch"], "again", "error", attempt=2)
    assert shown(command("logs", started).stdout) == [
        "fetch  one",
        "load  warning: careful\\x1b[31m    tab",
        "fetch  two",
        "fetch  three",
        "fetch (attempt 2)  error: again",
        "fetch  four",
    ]
    assert shown(command("logs", started, "load").stdout) == ["load  warning: careful\\x1b[31m    tab"]
    assert command("logs", started, "load#2").stderr == "nothing was printed\n"


def test_what_is_missing_is_said(command: Command, database: Database, started: int, jobs: dict[str, int]) -> None:
    """Between the first and the last part, and in --json."""
    log(database, jobs["fetch"], "first")
    log(database, jobs["fetch"], "last\n", at=1_234_006)
    assert shown(command("logs", started).stdout) == [
        "fetch  first",
        "fetch  … 1,234,000 bytes are missing …",
        "fetch  last",
    ]
    entries = command.json("logs", started)
    assert [(entry["message"], entry["missing_bytes"], entry["visit"]) for entry in entries] == [
        ("first\n", 0, 1),
        ("last\n", 1_234_000, 1),
    ]


def test_items_are_named(command: Command, database: Database, started: int, jobs: dict[str, int]) -> None:
    """A visit includes its items."""
    log(database, jobs["fetch"], "all")
    statement = (
        "insert into noetl.log (execution_id, node_id, attempt, ordinal, step, level, first_byte, message)"
        f" select {started}, '{started}:' || node, 1, 1, 'fetch', 'info', 0, node"
        " from unnest('{fetch#1.7, fetch#1.70, fetch#2.7}'::text[]) node"
    )
    execute(database, statement)
    found = {name: shown(command("logs", started, name).stdout) for name in ("fetch[7]", "fetch#2[7]", "fetch#1")}
    assert found == {
        "fetch[7]": ["fetch[7]  fetch#1.7"],
        "fetch#2[7]": ["fetch#2[7]  fetch#2.7"],
        "fetch#1": ["fetch  all", "fetch[7]  fetch#1.7", "fetch[70]  fetch#1.70"],
    }


def test_follow_shows_lines_until_the_end(
    command: Command, database: Database, started: int, jobs: dict[str, int]
) -> None:
    """Each line once, also across many rows."""
    log(database, jobs["fetch"], "early")
    following = command.start("logs", started, "--follow", "--json")
    assert following.stdout is not None
    seen = [json.loads(following.stdout.readline())["message"]]
    rows(database, "select noetl.log_job(%s, 'w', 1, 'info', n::text) from generate_series(1, 600) n", jobs["load"])
    seen.append(json.loads(following.stdout.readline())["message"])
    log(database, jobs["fetch"], "late")
    for job in jobs.values():
        rows(database, "select noetl.complete_job(%s, 'w', 1, '{}')", job)
    decide(database)
    seen += [json.loads(line)["message"] for line in following.communicate()[0].splitlines()]
    assert sorted(seen) == sorted(["early\n", "late\n", *(f"{n}\n" for n in range(1, 601))])
    assert following.returncode == 0


def test_follow_goes_on_after_a_lost_connection(
    command: Command, database: Database, started: int, jobs: dict[str, int]
) -> None:
    """It says so, and shows each line once."""
    log(database, jobs["fetch"], "early")
    following = command.start("logs", started, "--follow")
    assert following.stdout is not None
    assert following.stderr is not None
    until(following.stdout, "early")
    cut(database, "noetl-broker logs")
    until(following.stderr, "the database is back")
    command("cancel", started)
    decide(database)
    out, _ = following.communicate()
    assert (out, following.returncode) == ("", 0)
