"""`executions`, `status` and `events`: what an operator sees of an execution."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import FETCH, Command, begin, complete, decide, execute, fail, rows
from tests.postgres import Database

COLUMNS = "select column_name from information_schema.columns where table_schema = 'noetl' and table_name = 'event'"
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
# The error of a `python` job.
ERROR = {
    "type": "KeyError",
    "message": "'city'",
    "traceback": "Traceback (most recent call last):\n  File \"<step fetch>\", line 3, in main\nKeyError: 'city'\n",
}


def test_a_job_that_no_worker_serves_is_named(command: Command, database: Database, started: int) -> None:
    """After a minute, with how many such jobs wait."""
    assert "no worker serves" not in command("status", started).stdout
    execute(database, "update noetl.queue set available_at = now() - interval '61 s'")
    assert "no worker serves python; one job waits for 1 min" in command("status", started).stdout


def test_executions_are_listed_in_plain_columns(command: Command, database: Database, started: int) -> None:
    """In a pipe: a header and one line each. Of a cancelled one with its reason, if there is one."""
    header, line = command("executions").stdout.splitlines()
    assert header.split() == ["execution", "path", "version", "status", "who", "started", "took", "error"]
    assert line.split()[:4] == [str(started), "examples/fetch", "1", "RUNNING"]
    second = command("start", "examples/fetch").stdout.strip()
    tagged = command("start", "examples/fetch", "--tag", "customer=7", "--tag", "region=eu").stdout.strip()
    keyed = command("start", "examples/fetch", "--idempotency-key", "order 17").stdout.strip()
    found = [
        command("executions", *one).stdout.splitlines()[1:] for one in (("--tag", "region=eu"), ("--key", "order*"))
    ]
    assert [[line.split("  ")[0] for line in lines] for lines in found] == [[tagged], [keyed]]
    assert ("region=eu, customer=7" in found[0][0], "order 17" in found[1][0]) == (True, True)
    command("cancel", "--tag", "customer=7", "--yes")
    command("cancel", "--key", "order 17", "--yes")
    decide(database)
    execute(database, "delete from noetl.execution where idempotency_key is not null or tags is not null")
    cuts = [command("executions", "--limit", limit).stderr for limit in (1, 2)]
    assert cuts == ["the newest 1; --limit shows more\n", ""]
    command("cancel", started)
    command("cancel", second, "--reason", "wrong city")
    decide(database)
    ends = [line.rpartition("  ")[2] for line in command("executions").stdout.splitlines()[1:]]
    assert ends == ["was cancelled: wrong city", "was cancelled"]


def test_status_shows_an_execution_without_a_path(command: Command, database: Database) -> None:
    """A NoETL server's row names no playbook."""
    execute(database, "insert into noetl.execution (execution_id, status, started_at) values (7, 'RUNNING', now())")
    assert command("status", 7).stdout.startswith("execution 7  without a playbook  RUNNING for ")


def test_status_and_events_follow_an_execution(command: Command, database: Database, started: int) -> None:
    """Its steps, its job with the worker and the time left, its result; each event, in turn order, with all columns."""
    found = command.json("status", started)
    assert [(step["step"], step["status"]) for step in found["steps"]] == [
        ("start", "COMPLETED"),
        ("fetch", "RUNNING"),
        ("end", "PENDING"),
    ]
    assert [(job["step"], job["status"]) for job in found["jobs"]] == [("fetch", "queued")]
    assert "waits for a worker since" in command("status", started).stdout
    following = command.start("events", started, "--follow", "--json")
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["event_type"] == "execution_start"
    [(queue_id,)] = rows(database, "select queue_id from noetl.lease_jobs('w1', 1, 60)")
    leased = command("status", started).stdout
    assert ("w1" in leased, "lease ends in " in leased) == (True, True)
    rows(database, "select noetl.complete_job(%s, 'w1', 1, '{\"n\": 1}')", queue_id)
    assert "events that wait for a broker to read them: 1" in command("status", started).stdout
    decide(database)
    assert 'result: {"n": 1}' in command("status", started).stdout
    log = command.json("events", started)
    assert [(event["event_type"], event["node_name"]) for event in log] == [
        ("execution_start", "fetch"),
        ("step_started", "fetch"),
        ("action_started", "fetch"),
        ("action_completed", "fetch"),
        ("step_completed", "fetch"),
        ("execution_complete", "fetch"),
    ]
    assert set(log[0]) == {name for (name,) in rows(database, COLUMNS)}
    out, _ = following.communicate()
    assert json.loads(out.splitlines()[-1])["event_type"] == "execution_complete"
    assert following.returncode == 0


def test_status_shows_that_a_worker_is_to_stop(command: Command, database: Database, started: int) -> None:
    """The execution was cancelled, and its job is still leased."""
    rows(database, "select queue_id from noetl.lease_jobs('w1', 1, 60)")
    command("cancel", started)
    decide(database)
    assert "its worker is to stop; lease ends in " in command("status", started).stdout


def test_events_of_iterator_items_have_their_index(command: Command, database: Database) -> None:
    """In the log and among the open jobs; also those of a later visit."""
    execution_id = begin(command, database, ITEMS)
    complete(database, 1)
    log = [line.split(None, 2)[2].split() for line in command("events", execution_id).stdout.splitlines()[1:]]
    assert [words[1:] for words in log if words[0] == "action_completed"] == [["spread[0]"], ["spread[1]"]]
    began = [words[1:] for words in log if words[0] == "iteration_started"]
    assert began == [[name, "item", index] for name in ("spread", "spread#2") for index in "01"]
    jobs = command("status", execution_id).stdout
    assert [name in jobs for name in ("spread#2[0]", "spread#2[1]")] == [True, True]


@pytest.mark.parametrize("name", ["status", "explain", "events"])
def test_a_failure_has_its_type_place_attempt_and_traceback(
    command: Command, database: Database, started: int, name: str
) -> None:
    """The traceback only if it is asked for, each line after a bar. Control characters are escaped."""
    fail(database, **{**ERROR, "message": "'city' red \x1b[31m alert\nsecond line"})
    short = command(name, started).stdout
    long = command(name, started, "--traceback").stdout
    assert "KeyError: 'city' red " in short
    assert "alert second line (line 3 in main" in short
    assert "attempt 1" in short
    assert "\x1b" not in long
    assert "  | KeyError: 'city'" not in short
    assert long.count("  | KeyError: 'city'") == 1


def test_a_failed_catch_shows_the_first_error(command: Command, database: Database) -> None:
    """Whoever wrote the typing error in the `catch` still sees why the step failed."""
    typo = FETCH.replace("next: end}", 'catch: [{when: "{{ error.code > 4 }}", step: end}], next: end}')
    started = begin(command, database, typo, "--idempotency-key", "k")
    fail(database, **ERROR)
    first = "KeyError: 'city' (line 3 in main, attempt 1); then its catch failed: `error.code` is undefined"
    again = ("start", "examples/story", "--idempotency-key", "k", "--wait")
    for call in (("status", started), ("events", started), ("explain", started), ("executions",), again):
        answer = command(*call)
        assert first in answer.stdout + answer.stderr
    assert "'city'; then its catch failed: `error.code` is undefined" in command("retry", "--all").stdout
    assert 'File "<step fetch>", line 3' in command("status", started, "--traceback").stdout
