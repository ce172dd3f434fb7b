"""How far an iterator is: counts, pace and failed items in `status`, `explain` and `events`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_broker.cli.status_view import changes, part_states
from tests.cli.conftest import Command, decide, execute, rows, write_playbook
from tests.postgres import Database

FETCH = """\
workload: {count: 40}
workflow:
  - {step: start, next: fetch}
  - step: fetch
    type: python
    code: "def main(n): return n"
    loop:
      {collection: "{{ range(workload.count) }}", element: n, mode: async, concurrency: 30, distribute: true,
       on_error: continue}
    args: {n: "{{ n }}"}
    next: end
  - {step: end}
"""
# Ends leased jobs: of three items two complete, one fails.
END = """
    with leased as (
      select queue_id, attempts, split_part(node_id, '.', 2)::int as index from noetl.lease_jobs('w', %s)
    ), failed as (
      select jsonb_build_object('message', 'no ' || index, 'type', 'type ' || index %% 2) as error, index from leased
    )
    select case when index %% 3 = 1 then noetl.fail_job(queue_id, 'w', attempts, error)
      else noetl.complete_job(queue_id, 'w', attempts, to_jsonb(index)) end
    from leased
    join failed using (index)"""


@pytest.fixture
def fetching(command: Command, database: Database) -> int:
    """Start an iterator over 40 items, of which 20 have ended and 10 are leased; give the execution's id."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    started = int(command("start", "examples/fetch").stdout)
    decide(database)
    rows(database, END, 20)
    decide(database)
    rows(database, "select queue_id from noetl.lease_jobs('w', 10)")
    return started


def test_status_shows_how_far_an_iterator_is(command: Command, fetching: int) -> None:
    """Items that ended and failed, the errors by type, and a few of the open jobs."""
    lines = command("status", fetching).stdout.splitlines()
    [step] = [line for line in lines if line.startswith("fetch  python")]
    jobs = [line.split()[:3] for line in lines if line.startswith("fetch[")]
    assert "  RUNNING    20 of 40, 7 failed, " in step
    assert "/s, about " in step
    assert "7 items failed, by type of error: type 1 4, type 0 3" in lines
    assert jobs == [[f"fetch[{index}]", "python", "leased"] for index in range(20, 30)]
    assert "and 10 more open jobs of items" in lines


def test_a_program_reads_the_numbers(command: Command, fetching: int) -> None:
    """In `iterators` of the document, one for each visit that is open or the latest of its step."""
    [found] = json.loads(command("status", fetching, "--json").stdout)["iterators"]
    times = [found.pop(name) for name in ("pace", "seconds_left", "last_ended_at")]
    assert None not in times
    assert found == {
        "step": "fetch", "visit": 1, "is_open": True, "total": 40, "started": 40, "ended": 20, "failed": 7,
        "cancelled": 0, "retrying": 0, "held": 0,
        "errors": [{"type": "type 1", "count": 4, "first": 1}, {"type": "type 0", "count": 3, "first": 4}],
        "other_errors": 0, "other_types": 0,
    }  # fmt: skip


def test_one_item_is_explained(command: Command, fetching: int) -> None:
    """What it is, and how it failed; no history is replayed for it."""
    headline, *because = command("explain", fetching, "fetch[4]").stdout.splitlines()
    assert headline.startswith(f"fetch[4] of execution {fetching} failed after ")
    assert because[:2] == ["  its item is 4", "  it failed: type 0: no 4 (attempt 1)"]
    assert because[2].startswith("  it ended with action_failed from w (event ")


def test_an_open_item_shows_its_job(command: Command, fetching: int) -> None:
    """Who has leased it."""
    assert "  worker w has been working on fetch[20] for " in command("explain", fetching, "fetch[20]").stdout


def test_status_of_one_item(command: Command, fetching: int) -> None:
    """A program gets its numbers."""
    text = command("status", fetching, "fetch[3]").stdout.splitlines()
    found = json.loads(command("status", fetching, "fetch#1[4]", "--json").stdout)
    assert text[0].startswith(f"fetch[3] of execution {fetching} completed after ")
    assert text[1:] == ["its result is 3"]
    assert (found["status"], found["attempt"], found["error"]["type"]) == ("FAILED", 1, "type 0")
    assert "not fetch[3]" in command("status", fetching, "fetch[3]", "--watch").stderr


@pytest.mark.parametrize(
    "name, fault",
    [
        ("fetch[40]", "fetch of execution {0} has no item 40: its items are 0 to 39"),
        ("fech[1]", "execution {0} has no step fech; noetl-broker status {0} lists its steps"),
        ("start[0]", "start of execution {0} has no item 0 that is known: it does not iterate"),
    ],
)
def test_an_item_that_is_not_there(command: Command, fetching: int, name: str, fault: str) -> None:
    """The error says which there are."""
    answer = command("explain", fetching, name)
    assert answer.exit_code == 1
    assert fault.format(fetching) in answer.stderr


def test_the_events_of_one_item(command: Command, fetching: int) -> None:
    """From its start to its end, without those of the others."""
    log = json.loads(command("events", fetching, "fetch[3]", "--json").stdout)
    assert [event["event_type"] for event in log] == [
        "iteration_started",
        "action_started",
        "action_completed",
        "iteration_completed",
    ]


def test_explain_folds_failed_items(command: Command, fetching: int) -> None:
    """With an example of each type."""
    lines = [line.strip() for line in command("explain", fetching).stdout.splitlines()]
    assert "7 items failed, by type of error: type 1 4, type 0 3" in lines
    assert f"noetl-broker explain {fetching} 'fetch[1]' shows the first type 1" in lines
    assert any(line.startswith("items end at ") for line in lines)


def test_hostile_error_types_stay_bounded(command: Command, database: Database, fetching: int) -> None:
    """Many, long and unprintable ones: the first are shortened, the others are counted."""
    hostile = "jsonb_build_object('type', index || repeat(chr(27) || E'[2J\\n', 1000))"
    execute(database, f"update noetl.iteration set status = 'FAILED', error = {hostile}")
    text = command("status", fetching).stdout
    [line] = [line for line in text.splitlines() if line.startswith("40 items failed, by type of error: ")]
    assert line.endswith(", 35 other types 35")
    assert len(line) < 600
    assert "\x1b" not in text


def test_watch_shows_a_line_for_each_percent() -> None:
    """Not for each item."""

    def state(ended: int) -> dict[str, Any]:
        progress = {"step": "fetch", "visit": 1, "total": 5000, "ended": ended, "failed": 0, "pace": None}
        progress["seconds_left"] = None
        found = {"execution_id": 1, "status": "RUNNING", "started_at": None, "ended_at": None, "steps": [], "jobs": []}
        return {**found, "iterators": [progress]}

    lines = [[*changes(part_states(state(100)), part_states(state(ended)))] for ended in (149, 150)]
    assert lines == [[], ["items of fetch  150 of 5,000"]]


def test_an_item_that_a_worker_ran_is_read_from_the_result(command: Command, database: Database) -> None:
    """It has no row; the result of its step has its result or its error."""
    body = FETCH.replace("distribute: true,", "distribute: false,")
    command("register", write_playbook(command.folder, body, path="examples/whole"))
    started = int(command("start", "examples/whole").stdout)
    decide(database)
    failed = [{"index": 1, "error": {"type": "KeyError", "message": "'city'"}}]
    result = json.dumps({"data": [7, None], "meta": {"failed": failed}})
    rows(database, "select noetl.complete_job(queue_id, 'w', 1, %s::jsonb) from noetl.lease_jobs('w')", result)
    decide(database)
    first, second = (json.loads(command("status", started, f"fetch[{n}]", "--json").stdout) for n in (0, 1))
    assert (first["status"], first["result"], first["by_worker"]) == ("COMPLETED", 7, True)
    assert (second["status"], second["error"]) == ("FAILED", failed[0]["error"])
    assert "fetch of execution" in command("explain", started, "fetch[2]").stderr


@pytest.fixture
def whole(command: Command, database: Database) -> int:
    """Start an iterator that one worker runs, which has reported; give the execution's id."""
    body = FETCH.replace("distribute: true,", "distribute: false,")
    command("register", write_playbook(command.folder, body, path="examples/whole"))
    started = int(command("start", "examples/whole").stdout)
    decide(database)
    report = '{"done": 1125, "failed": 79, "total": 5000, "errors": {"KeyError": 70, "timeout": 4}, "other_types": 2}'
    rows(database, "select noetl.report_progress(queue_id, 'w', 1, %s) from noetl.lease_jobs('w')", report)
    return started


def test_status_shows_what_a_worker_reports_of_its_items(command: Command, whole: int) -> None:
    """In the same column as items that are jobs."""
    lines = command("status", whole).stdout.splitlines()
    [step] = [line for line in lines if line.startswith("fetch  python")]
    assert "  RUNNING    1,204 of 5,000, 79 failed, " in step
    assert "/s, about " in step
    assert "79 items failed, by type of error: KeyError 70, timeout 4, 2 other types 5" in lines


def test_explain_shows_what_a_worker_reports_of_its_items(command: Command, whole: int) -> None:
    """Single items are not known yet."""
    lines = [line.strip() for line in command("explain", whole).stdout.splitlines()]
    assert "its worker reports 1,204 of 5,000, 79 failed" in lines
    assert "79 items failed, by type of error: KeyError 70, timeout 4, 2 other types 5" in lines
    assert not any("shows the first" in line for line in lines)


@pytest.fixture
def ended(command: Command, database: Database) -> int:
    """Run an iterator of 30 items as one job, of which 25 fail, to its end; give the execution's id."""
    body = FETCH.replace("distribute: true,", "distribute: false,")
    command("register", write_playbook(command.folder, body, path="examples/whole"))
    started = int(command("start", "examples/whole").stdout)
    decide(database)
    failed = [{"index": index, "error": {"type": f"T{index % 2}", "message": f"no {index}"}} for index in range(5, 30)]
    result = json.dumps({"data": [1] * 5 + [None] * 25, "meta": {"failed": failed}})
    rows(database, "select noetl.complete_job(queue_id, 'w', 1, %s::jsonb) from noetl.lease_jobs('w')", result)
    decide(database)
    return started


def test_the_items_of_an_ended_job_are_counted(command: Command, ended: int) -> None:
    """From the result of the step: `status` and `explain` of the step and of the completed execution show them."""
    lines = command("status", ended).stdout.splitlines()
    [step] = [line for line in lines if line.startswith("fetch  python")]
    assert "  COMPLETED  30 of 30, 25 failed  " in step
    assert "25 items failed, by type of error: T1 13, T0 12" in lines
    assert "  its items: 30 of 30, 25 failed\n" in command("explain", ended, "fetch").stdout
    said = [line.strip() for line in command("explain", ended).stdout.splitlines()]
    assert f"fetch: 30 of 30, 25 failed; noetl-broker explain {ended} fetch lists them" in said


def test_explain_lists_the_first_failed_items(command: Command, ended: int) -> None:
    """By index, each with its error."""
    lines = [line.strip() for line in command("explain", ended, "fetch").stdout.splitlines()]
    at = lines.index("the failed items, by index:")
    assert lines[at + 1 : at + 22] == [*(f"fetch[{n}]: T{n % 2}: no {n}" for n in range(5, 25)), "… and 5 more"]


def test_explain_lists_the_failed_items_of_an_open_iterator(command: Command, fetching: int) -> None:
    """Which have jobs of their own."""
    lines = [line.strip() for line in command("explain", fetching, "fetch").stdout.splitlines()]
    at = lines.index("the failed items, by index:")
    assert lines[at + 1 : at + 3] == ["fetch[1]: type 1: no 1", "fetch[4]: type 0: no 4"]


@pytest.mark.parametrize(
    "item, fault",
    [("fetch[7]", "they have one log: noetl-broker logs {0} fetch"), ("fetch[999]", "has no item 999")],
)
def test_an_item_without_a_log_of_its_own(command: Command, ended: int, item: str, fault: str) -> None:
    """One worker ran all items, or it does not exist."""
    answer = command("logs", ended, item)
    assert answer.exit_code == 1
    assert fault.format(ended) in answer.stderr


def test_status_of_a_step_that_does_not_exist(command: Command, ended: int) -> None:
    """And of one that does, which `explain` shows."""
    assert f"execution {ended} has no step nope; noetl-broker status" in command("status", ended, "nope").stderr
    assert f"noetl-broker explain {ended} fetch shows it" in command("status", ended, "fetch").stderr


RETRIED = """\
workflow:
  - {step: start, next: fetch}
  - step: fetch
    type: iterator
    collection: [0, 1, 2]
    element: n
    mode: async
    tolerate: 1
    task:
      type: python
      code: "def main(n): return n"
      args: {n: "{{ n }}"}
      retry: {max_attempts: 2, initial_delay: 100}
      catch: [{when: "{{ error.type == 'bad' }}", result: {bad: "{{ n }}"}}]
    next: end
  - {step: end}
"""
FAIL_ONE = """
    select noetl.fail_job(queue_id, 'w', attempts, '{"message": "no", "type": "%s"}', %s)
    from noetl.lease_jobs('w', 1)"""


@pytest.fixture
def retrying(command: Command, database: Database) -> int:
    """Start an iterator whose first item waits for a retry, the second one was caught; give the execution's id."""
    command("register", write_playbook(command.folder, RETRIED, path="examples/retried"))
    started = int(command("start", "examples/retried").stdout)
    decide(database)
    rows(database, FAIL_ONE % ("busy", "true"))
    rows(database, FAIL_ONE % ("bad", "false"))
    decide(database)
    return started


def test_status_says_how_many_items_wait_for_a_retry(command: Command, retrying: int) -> None:
    """Beside those that ended; a caught item has not failed."""
    [found] = json.loads(command("status", retrying, "--json").stdout)["iterators"]
    assert (found["ended"], found["failed"], found["retrying"]) == (1, 0, 1)
    assert "1 of 3, 1 waits for a retry" in command("status", retrying).stdout


def test_an_item_says_why_and_when_it_is_tried_again(command: Command, retrying: int) -> None:
    """Its failed attempts, and its job. What was caught has its error and the result of its `catch`."""
    text = command("explain", retrying, "fetch[0]").stdout
    assert "1 earlier attempt failed: busy: no" in text
    assert "fetch[0] will be retried in " in text
    caught = command("explain", retrying, "fetch[1]").stdout
    assert 'it failed: bad: no; its catch gave {"bad": 1}' in caught


def test_the_events_of_an_item_have_its_retries(command: Command, retrying: int) -> None:
    """Where they belong: between the attempts."""
    log = json.loads(command("events", retrying, "fetch[0]", "--json").stdout)
    assert [event["event_type"] for event in log] == [
        "iteration_started",
        "action_started",
        "action_failed",
        "action_retry",
    ]
