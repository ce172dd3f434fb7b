"""`explain`: sentences from the tables, for executions that wait, run, failed and ended."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command, begin, complete, decide, execute, rows, write_playbook
from tests.postgres import Database

WEATHER = """\
workload: {limit: 25}
workflow:
  - {step: start, next: get}
  - step: get
    type: python
    code: "def main(): ..."
    retry: {max_attempts: 2, initial_delay: 30, jitter: false}
    next:
    - {when: "{{ get.temp > limit }}", step: alert}
    - {else: [log]}
  - {step: alert, type: python, code: "def main(): ...", next: end}
  - {step: log, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""


BELL = """
    select
    from pg_stat_activity
    where datname = current_database() and application_name = 'noetl-broker bell'"""


@pytest.fixture
def started(command: Command) -> int:
    """Start an execution of a step with a choice after it; give its id."""
    command("register", write_playbook(command.folder, WEATHER, path="examples/weather"))
    return int(command("start", "examples/weather").stdout)


def explained(command: Command, *arguments: str | int) -> list[str]:
    """Give the lines that `explain` prints."""
    answer = command("explain", *arguments)
    assert answer.exit_code == 0, answer.output
    return answer.stdout.splitlines()


def kinds(command: Command, *arguments: str | int) -> list[str]:
    """Give the kinds of facts behind the first sentence."""
    return [answer["kind"] for answer in command.json("explain", *arguments)["because"]]


def test_a_start_that_nobody_read_waits_for_a_broker(command: Command, started: int) -> None:
    """There are no turns yet."""
    first, unread, nobody = explained(command, started)
    assert first.startswith(f"execution {started} (examples/weather version 1) has been RUNNING for ")
    assert unread.strip().startswith("execution_start (event ")
    assert nobody == "  no broker is connected to this database (start one: noetl-broker run)"
    assert explained(command, started, "get")[0] == "get cannot be explained: no broker has read its start yet"


def test_a_connected_broker_is_mentioned(command: Command, database: Database, started: int) -> None:
    """Its listener is connected."""
    command.start("run")
    while not (rows(database, BELL) and rows(database, "select from noetl.turn")):
        pass
    assert kinds(command, started) == ["queued", "way"]


def test_explain_shows_a_job_queued_leased_and_retried(command: Command, database: Database, started: int) -> None:
    """Its worker, its attempts, what failed, and when it is due. If a clock was set back, that is why it waits."""
    decide(database)
    assert explained(command, started)[1].startswith(
        "  the job of get has been waiting for a worker of type python for "
    )
    assert (
        "1 job of type python waits, none is leased; no such worker was seen lately" in explained(command, started)[2]
    )
    moved = "update noetl.queue set created_at = created_at {0}, available_at = available_at {0}"
    execute(database, moved.format("+ interval '2 h 10 s'"))
    why = explained(command, started, "get")[2]
    assert "its times are 2 h 0 min ahead of the server's clock, which was set back" in why
    execute(database, moved.format("- interval '2 h 10 s'"))
    [(queue_id,)] = rows(database, "select queue_id from noetl.lease_jobs('w1', 1, 60)")
    held = explained(command, started)
    assert held[1].startswith("  worker w1 has been working on get for ")
    assert held[2].startswith("    the lease ends in ")
    rows(database, "select noetl.fail_job(%s, 'w1', 1, '{\"message\": \"no network\"}')", queue_id)
    assert explained(command, started)[1:3][0] == "  get has an event that no broker has read yet"
    decide(database)
    retried = explained(command, started, "get")
    assert retried[1].startswith("  get will be retried in ")
    assert retried[2] == "    attempt 1 of 2 failed: no network"


def test_explain_names_the_events_that_kept_a_step_from_running(
    command: Command, database: Database, started: int
) -> None:
    """The event with the value is in the log under that id."""
    decide(database)
    complete(database, {"temp": 20})
    [(event_id,)] = rows(database, "select event_id from noetl.event where event_type = 'action_completed'")
    assert explained(command, started, "alert")[:-1] == [
        f"alert of execution {started} (examples/weather version 1, RUNNING) has not run",
        "  the transition from get (when {{ get.temp > limit }}) was not taken when get finished",
        "    the condition {{ get.temp > limit }} was false: get.temp was 20, limit was 25",
        f"      get was the result of get: action_completed from w1 (event {event_id}, turn 2)",
        "      limit came from the workload's defaults",
    ]
    result = command.json("explain", started, "alert")["because"][0]["because"][0]["because"][0]
    assert (result["facts"]["event_id"], result["facts"]["worker_id"]) == (str(event_id), "w1")


def test_explain_shows_dead_letters(command: Command, database: Database, started: int) -> None:
    """With the reason, and the command that puts it back."""
    execute(database, f"alter table noetl.turn add constraint poison check (execution_id <> {started})")
    decide(database)
    lines = explained(command, started)
    assert "was moved to the dead letters" in lines[1]
    assert "poison" in lines[1]
    assert lines[2] == f"    after that is fixed: noetl-broker reevaluate {started}"


def test_explain_shows_all_that_an_execution_waits_for(command: Command, database: Database, started: int) -> None:
    """A child with its status, items with their jobs, a person with the commands that decide, and the deadline."""
    body = """
    workflow:
    - {step: start, next: [call, each, ask]}
    - {step: call, type: playbook, path: examples/weather}
    - step: each
      type: iterator
      collection: [1, 2, 3]
      element: n
      mode: async
      concurrency: 2
      distribute: true
      task: {type: python, code: "def main(): ..."}
    - {step: ask, type: approval, title: "Order {{ workload.order }}", timeout: 36h, approvers: finance}
    """
    family = begin(command, database, body, "--payload", '{"order": 7}', metadata="deadline: 500000")
    decide(database)
    [(child,)] = rows(database, "select execution_id from noetl.execution where parent_execution_id = %s", family)
    lines = [line.strip() for line in explained(command, family)]
    at = lines.index("call is waiting for the playbook that it started")
    assert lines[at + 1].startswith(f"execution {child} (examples/weather) has been running for ")
    assert lines[at + 1].endswith(", at get")
    at = lines.index("each has 3 items: 0 ended (0 failed), 2 open, 1 not started")
    assert [line[:15] for line in lines[at + 1 : at + 5 : 2]] == ["the job of each"] * 2
    assert lines[-1].startswith("it fails in 5 d ")
    assert kinds(command, child)[0] == "queued"
    assert explained(command, child)[0].endswith(f"; a child of {family}")
    text = "\n".join(explained(command, family, "ask"))
    assert "  ask has been waiting for a person's decision for" in text
    assert f"noetl-broker approve {family} ask, or noetl-broker reject {family} ask" in text
    assert "it times out in 1 d 1" in text  # 12 h, or 11 h some seconds later
    assert started


def test_explain_shows_how_an_execution_ended(command: Command, database: Database, started: int) -> None:
    """Failed: the step, the message, the retry; then the execution that retries it."""
    decide(database)
    rows(database, "select noetl.complete_job(queue_id, 'w1', 1, '{}') from noetl.lease_jobs('w1')")
    decide(database)
    lines = explained(command, started)
    assert "failed after" in lines[0]
    complaint = "`get.temp` is undefined: there is no such key in a mapping (at workflow[1].next[0].when)"
    assert lines[0].endswith(f"in step get: {complaint}")
    assert lines[-1] == f"  noetl-broker retry {started} continues it from the failure"
    new = command.json("retry", started)["recovered_as"]
    assert explained(command, started)[-1] == f"  it is continued as execution {new}, which is RUNNING"
    decide(database)
    assert kinds(command, new, "get")[:2] == ["queued", "entered"]


def test_explain_reports_a_missing_step_or_visit(command: Command, database: Database, started: int) -> None:
    """In one sentence."""
    decide(database)
    command.refuses(
        [
            (f"{started} gett", 2, "playbook examples/weather has no step gett; did you mean `get`"),
            (f"{started} get#2", 2, "step get has no visit 2: it was visited 1 times"),
            (f"{started} get#x", 2, "get#x names no visit: write for example get#2 for the second"),
        ],
        "explain",
    )


def test_a_failed_execution_names_its_alarm(command: Command, database: Database) -> None:
    """And the alarm names the execution that failed."""
    command("register", write_playbook(command.folder, "workflow: [{step: start}]", path="ops/alarm"))
    body = "workflow: [{step: start, next: a}, {step: a, type: http, url: '{{ x }}'}]"
    failed = begin(command, database, body, metadata="on_failure: {path: ops/alarm}")
    [(alarm,)] = rows(database, "select execution_id from noetl.execution where path = 'ops/alarm'")
    assert f"  its on_failure started execution {alarm} (ops/alarm), which is COMPLETED" in explained(command, failed)
    assert explained(command, alarm)[0].endswith(f"; started because {failed} failed")
