"""The commands `pause` and `resume`, and what `cancel` and `fork` do with filters."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command, begin, decide, read_until
from tests.postgres import Database

BODY = """
workflow:
  - {step: start, next: a}
  - {step: a, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""


@pytest.fixture
def started(command: Command, database: Database) -> list[str]:
    """Give two executions that wait for their first job."""
    return [str(begin(command, database, BODY, path="story")) for _ in range(2)]


def statuses(command: Command) -> list[str]:
    """Return the statuses of all executions, the oldest first."""
    return [entry["status"] for entry in command.json("executions")][::-1]


def test_an_execution_is_paused_and_resumed(command: Command, database: Database, started: list[str]) -> None:
    """By its id. An ended one is not paused: the command fails, and says how it ended."""
    assert command("pause", started[0], "--reason", "disk full").stdout == f"pausing execution {started[0]}\n"
    decide(database)
    assert statuses(command) == ["PAUSED", "RUNNING"]
    assert command("events", started[0]).stdout.count("disk full") == 2
    assert command("resume", started[0]).stdout == f"resuming execution {started[0]}\n"
    decide(database)
    assert statuses(command) == ["RUNNING", "RUNNING"]
    command("cancel", started[0])
    decide(database)
    done = command("pause", started[0])
    assert (done.exit_code, done.stdout) == (1, f"execution {started[0]} has already ended: CANCELLED\n")
    both = command("pause", *started)
    assert (both.exit_code, both.stdout) == (
        1, "executions are paused: 1 of 2 executions; 1 execution had ended before\n",
    )  # fmt: skip


def test_executions_of_a_filter_are_paused_after_a_preview(
    command: Command, database: Database, started: list[str]
) -> None:
    """Without --yes, they are counted, with an example."""
    preview = command("pause", "--status", "running")
    assert started[1] in preview.stdout
    assert preview.stdout.endswith("executions are paused: 2 executions; nothing was done, --yes does it\n")
    assert command("pause", "--status", "running", "--yes").stdout.endswith(
        "executions are paused: 2 of 2 executions\n"
    )
    decide(database)
    assert statuses(command) == ["PAUSED", "PAUSED"]
    assert command("resume", "--all", "--yes").stdout.endswith("executions are resumed: 2 of 2 executions\n")
    decide(database)
    assert statuses(command) == ["RUNNING", "RUNNING"]
    assert command("resume", "--all").stdout == "no execution is left to be resumed\n"


def test_new_executions_of_a_path_are_queued_and_admitted(
    command: Command, database: Database, started: list[str]
) -> None:
    """Those that run are not paused. `status` says why one is queued."""
    done = command("pause", "--path", "story", "--reason", "a fix")
    assert done.stdout.startswith("new executions of story are queued")
    queued = command("start", "story", "--idempotency-key", "k").stdout.strip()
    decide(database)
    why = "its playbook is paused: a fix (noetl-broker resume --path story admits it)"
    assert [why in command("status", one).stdout.splitlines() for one in (queued, started[0])] == [True, False]
    assert statuses(command) == ["RUNNING", "RUNNING", "QUEUED"]
    waiting = command.start("start", "story", "--idempotency-key", "k", "--wait")
    assert read_until(waiting, "noetl-broker resume --path story admits it")
    waiting.kill()
    done = command("resume", "--path", "story")
    assert done.stdout == "new executions of story run again; admitted: 1 execution\n"
    decide(database)
    assert statuses(command) == ["RUNNING", "RUNNING", "RUNNING"]
    assert command("resume", "--path", "story").stdout == "story is not paused\n"


def test_executions_of_a_filter_are_cancelled(command: Command, database: Database, started: list[str]) -> None:
    """`--until` leaves out those that started later."""
    assert started
    assert command("cancel", "--path", "st*", "--until", "1h").stdout == "no execution is left to be cancelled\n"
    assert command("cancel", "--path", "st*", "--yes").stdout.endswith("executions are cancelled: 2 of 2 executions\n")
    decide(database)
    assert statuses(command) == ["CANCELLED", "CANCELLED"]
    # A fork of them is marked in the list, and not repeated. Without a status it takes failed ones.
    call = ("fork", "--from", "a", "--path", "story", "--status", "cancelled")
    assert command(*call[:-2]).stdout == "no execution is left to be forked\n"
    assert command(*call, "--yes").stdout.endswith("executions are forked from a: 2 of 2 executions\n")
    decide(database)
    assert command(*call).stdout == (
        "no execution is left to be forked;"
        " 2 executions are left out, because a retry or a fork continues them already\n"
    )
    listed = command("executions", "--status", "cancelled").stdout
    assert listed.count("continued as") == 2
