"""`executions`, `status` and `events`: what an operator sees of an execution."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Command, execute, rows, write_playbook
from tests.postgres import Database

FETCH = """\
workflow:
  - {step: start, next: fetch}
  - {step: fetch, type: python, code: "def main(): return 1", next: end}
  - {step: end}
"""
COLUMNS = "select column_name from information_schema.columns where table_schema = 'noetl' and table_name = 'event'"


@pytest.fixture
def started(command: Command) -> int:
    """Start an execution and let a broker read its start: a job waits; give its id."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    started = int(command("start", "examples/fetch").stdout)
    assert command("run", "--drain").exit_code == 0
    return started


def test_executions_are_filtered(command: Command, started: int) -> None:
    """By status and playbook; * stands for any characters."""

    def found(*filters: str) -> list[int]:
        return [int(entry["execution_id"]) for entry in json.loads(command("executions", *filters, "--json").stdout)]

    assert [found("--status", "running"), found("--path", "examples/*"), found("--path", "examples_fetch")] == [
        [started],
        [started],
        [],
    ]
    assert found("--status", "failed") == []


@pytest.mark.parametrize(
    "reason, outcome", [((), "was cancelled"), (("--reason", "wrong city"), "was cancelled: wrong city")]
)
def test_a_cancelled_execution_is_listed_with_its_reason(
    command: Command, started: int, reason: tuple[str, ...], outcome: str
) -> None:
    """If there is one."""
    command("cancel", started, *reason)
    assert command("run", "--drain").exit_code == 0
    assert command("executions").stdout.rstrip().endswith(f"  {outcome}")


def test_a_pipe_gets_plain_columns(command: Command, started: int) -> None:
    """Without colours and boxes: a header and one line each."""
    header, line = command("executions").stdout.splitlines()
    assert header.split() == ["execution", "path", "version", "status", "started", "took", "error"]
    assert line.split()[:4] == [str(started), "examples/fetch", "1", "RUNNING"]


def test_status_shows_steps_and_open_jobs(command: Command, started: int) -> None:
    """One line a step, and what each open job waits for."""
    text = command("status", started).stdout
    found = json.loads(command("status", started, "--json").stdout)
    assert [(step["step"], step["status"]) for step in found["steps"]] == [
        ("start", "COMPLETED"),
        ("fetch", "RUNNING"),
        ("end", "PENDING"),
    ]
    assert [(job["step"], job["status"]) for job in found["jobs"]] == [("fetch", "queued")]
    assert "waits for a worker since" in text


def test_status_shows_an_execution_without_a_path(command: Command, database: Database) -> None:
    """A NoETL server's row names no playbook."""
    execute(database, "insert into noetl.execution (execution_id, status, started_at) values (7, 'RUNNING', now())")
    assert command("status", 7).stdout.startswith("execution 7  without a playbook  RUNNING for ")


def test_status_shows_a_lease_and_then_the_result(command: Command, database: Database, started: int) -> None:
    """The worker of the job and the time left; at the end the result."""
    [(queue_id,)] = rows(database, "select queue_id from noetl.lease_jobs('w1', 1, 60)")
    leased = command("status", started).stdout
    rows(database, "select noetl.complete_job(%s, 'w1', 1, '{\"n\": 1}')", queue_id)
    unread = command("status", started).stdout
    command("run", "--drain")
    ended = command("status", started).stdout
    assert "w1" in leased
    assert "lease ends in " in leased
    assert "events that wait for a broker to read them: 1" in unread
    assert 'result: {"n": 1}' in ended


def test_status_shows_that_a_worker_is_to_stop(command: Command, database: Database, started: int) -> None:
    """The execution was cancelled, and its job is still leased."""
    rows(database, "select queue_id from noetl.lease_jobs('w1', 1, 60)")
    command("cancel", started)
    command("run", "--drain")
    assert "its worker is to stop; lease ends in " in command("status", started).stdout


def test_events_are_in_turn_order(command: Command, database: Database, started: int) -> None:
    """The events of a whole execution, each with all columns."""
    [(queue_id,)] = rows(database, "select queue_id from noetl.lease_jobs('w1', 1, 60)")
    rows(database, "select noetl.complete_job(%s, 'w1', 1, '{}')", queue_id)
    command("run", "--drain")
    log = json.loads(command("events", started, "--json").stdout)
    assert [(event["event_type"], event["node_name"]) for event in log] == [
        ("execution_start", "fetch"),
        ("step_started", "fetch"),
        ("action_started", "fetch"),
        ("action_completed", "fetch"),
        ("step_completed", "fetch"),
        ("execution_complete", "fetch"),
    ]
    assert set(log[0]) == {name for (name,) in rows(database, COLUMNS)}


def test_follow_ends_with_the_execution(command: Command, database: Database, started: int) -> None:
    """Existing events are shown at once, later ones as they come."""
    following = command.start("events", started, "--follow", "--json")
    first = json.loads(following.stdout.readline() if following.stdout else "")
    [(queue_id,)] = rows(database, "select queue_id from noetl.lease_jobs('w1', 1, 60)")
    rows(database, "select noetl.complete_job(%s, 'w1', 1, '{}')", queue_id)
    command("run", "--drain")
    out, _ = following.communicate()
    last = json.loads(out.splitlines()[-1])
    assert (first["event_type"], last["event_type"], following.returncode) == (
        "execution_start",
        "execution_complete",
        0,
    )


def test_messages_are_escaped(command: Command, database: Database, started: int) -> None:
    """Text of others is shown without control characters."""
    [(queue_id,)] = rows(database, "select queue_id from noetl.lease_jobs('w1', 1, 60)")
    error = json.dumps({"message": "red \x1b[31m alert\nsecond line"})
    rows(database, "select noetl.fail_job(%s, 'w1', 1, %s::jsonb)", queue_id, error)
    command("run", "--drain")
    for name in ("events", "status"):
        assert "\x1b" not in command(name, started).stdout


ITEMS = """
workflow:
- {step: start, next: spread}
- step: spread
  type: iterator
  collection: [1, 2]
  element: n
  mode: async
  distribute: true
  task: {type: python, code: result = 1}
  next: [{when: "{{ spread[0] == 1 }}", step: spread}]
"""


def test_events_of_iterator_items_have_their_index(command: Command, database: Database) -> None:
    """In the log and among the open jobs; also those of a later visit."""
    command("register", write_playbook(command.folder, ITEMS, path="examples/items"))
    execution_id = int(command("start", "examples/items").stdout)
    command("run", "--drain")
    rows(database, "select noetl.complete_job(queue_id, 'w', 1, '1') from noetl.lease_jobs('w', 9)")
    command("run", "--drain")
    log = [line.split(None, 2)[2].split() for line in command("events", execution_id).stdout.splitlines()[1:]]
    assert [words[1:] for words in log if words[0] == "action_completed"] == [["spread[0]"], ["spread[1]"]]
    began = [words[1:] for words in log if words[0] == "iteration_started"]
    assert began == [
        ["spread", "item", "0"], ["spread", "item", "1"], ["spread#2", "item", "0"], ["spread#2", "item", "1"],
    ]  # fmt: skip
    jobs = command("status", execution_id).stdout
    assert [name in jobs for name in ("spread#2[0]", "spread#2[1]")] == [True, True]


def fail_fetch(command: Command, database: Database, attempt: int = 1) -> None:
    """Fail the leased job for good, as the `python` tool does."""
    error = {
        "type": "KeyError",
        "message": "'city'",
        "traceback": "Traceback (most recent call last):\n  File \"<step fetch>\", line 3, in main\nKeyError: 'city'\n",
    }
    [(queue_id,)] = rows(database, "select queue_id from noetl.lease_jobs('w1', 1, 60)")
    rows(database, "select noetl.fail_job(%s, 'w1', %s, %s::jsonb, false)", queue_id, attempt, json.dumps(error))
    command("run", "--drain")


@pytest.mark.parametrize("words", [("status",), ("explain",), ("events",)])
def test_a_failure_has_its_type_place_attempt_and_traceback(
    command: Command, database: Database, started: int, words: tuple[str, ...]
) -> None:
    """The traceback only if it is asked for, each line after a bar."""
    fail_fetch(command, database)
    short = command(*words, started).stdout
    long = command(*words, started, "--traceback").stdout
    assert "KeyError: 'city' (line 3 in main" in short
    assert "attempt 1" in short
    assert "  | KeyError: 'city'" not in short
    assert long.count("  | KeyError: 'city'") == 1


def test_a_failed_catch_shows_the_first_error(command: Command, database: Database) -> None:
    """Whoever wrote the typing error in the `catch` still sees why the step failed."""
    typo = FETCH.replace("next: end}", 'catch: [{when: "{{ error.code > 4 }}", step: end}], next: end}')
    command("register", write_playbook(command.folder, typo, path="examples/fetch"))
    call = ("start", "examples/fetch", "--idempotency-key", "k")
    started = command(*call).stdout.strip()
    command("run", "--drain")
    fail_fetch(command, database)
    first = "KeyError: 'city' (line 3 in main, attempt 1); then its catch failed: `error.code` is undefined"
    shown = {
        name: answer.stdout + answer.stderr
        for name, answer in (
            ("status", command("status", started)),
            ("events", command("events", started)),
            ("explain", command("explain", started)),
            ("executions", command("executions")),
            ("start", command(*call, "--wait")),
        )
    }
    assert [name for name, text in shown.items() if first not in text] == []
    assert "'city'; then its catch failed: `error.code` is undefined" in command("retry", "--all").stdout
    assert 'File "<step fetch>", line 3' in command("status", started, "--traceback").stdout
