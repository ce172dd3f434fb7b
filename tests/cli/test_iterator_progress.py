"""How far an iterator is: counts, pace and failed items in `status`, `explain` and `events`."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command, begin, complete, decide, execute, rows
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
    started = begin(command, database, FETCH)
    rows(database, END, 20)
    decide(database)
    rows(database, "select queue_id from noetl.lease_jobs('w', 10)")
    return started


def start_whole(command: Command, database: Database) -> int:
    """Start an iterator that one worker runs as one job; give the execution's id."""
    return begin(command, database, FETCH.replace("distribute: true,", "distribute: false,"))


def explained(command: Command, *arguments: str | int) -> list[str]:
    """Give the lines of `explain` without their indents."""
    return [line.strip() for line in command("explain", *arguments).stdout.splitlines()]


def test_an_iterator_shows_how_far_it_is(command: Command, database: Database, fetching: int) -> None:
    """Items that ended and failed, the errors by type with examples, and a few of the open jobs."""
    lines = command("status", fetching).stdout.splitlines()
    [step] = [line for line in lines if line.startswith("fetch  python")]
    jobs = [line.split()[:3] for line in lines if line.startswith("fetch[")]
    assert "  RUNNING    20 of 40, 7 failed, " in step
    assert "/s, about " in step
    assert jobs == [[f"fetch[{index}]", "python", "leased"] for index in range(20, 30)]
    assert "and 10 more open jobs of items" in lines
    said = explained(command, fetching)
    by_type = "7 items failed, by type of error: type 1 4, type 0 3"
    assert [by_type in text for text in (lines, said)] == [True, True]
    assert f"noetl-broker explain {fetching} 'fetch[1]' shows the first type 1" in said
    assert any(line.startswith("items end at ") for line in said)
    listed = explained(command, fetching, "fetch")
    at = listed.index("the failed items, by index:")
    assert listed[at + 1 : at + 3] == ["fetch[1]: type 1: no 1", "fetch[4]: type 0: no 4"]

    # A program reads the numbers, of each visit that is open or the latest of its step.
    [found] = command.json("status", fetching)["iterators"]
    times = [found.pop(name) for name in ("pace", "seconds_left", "last_ended_at")]
    assert None not in times
    assert found == {
        "step": "fetch", "visit": 1, "is_open": True, "total": 40, "started": 40, "ended": 20, "failed": 7,
        "cancelled": 0, "retrying": 0, "held": 0,
        "errors": [{"type": "type 1", "count": 4, "first": 1}, {"type": "type 0", "count": 3, "first": 4}],
        "other_errors": 0, "other_types": 0,
    }  # fmt: skip

    # Many, long and unprintable types of errors: the first are shortened, the others are counted.
    hostile = "jsonb_build_object('type', index || repeat(chr(27) || E'[2J\\n', 1000))"
    execute(database, f"update noetl.iteration set status = 'FAILED', error = {hostile}")
    text = command("status", fetching).stdout
    [line] = [line for line in text.splitlines() if line.startswith("40 items failed, by type of error: ")]
    assert line.endswith(", 35 other types 35")
    assert (len(line) < 600, "\x1b" in text) == (True, False)


def test_one_item_is_shown(command: Command, fetching: int) -> None:
    """What it is, how it failed, who has its job, its own events; no history is replayed for it."""
    headline, *because = command("explain", fetching, "fetch[4]").stdout.splitlines()
    assert headline.startswith(f"fetch[4] of execution {fetching} failed after ")
    assert because[:2] == ["  its item is 4", "  it failed: type 0: no 4 (attempt 1)"]
    assert because[2].startswith("  it ended with action_failed from w (event ")
    assert "  worker w has been working on fetch[20] for " in command("explain", fetching, "fetch[20]").stdout
    text = command("status", fetching, "fetch[3]").stdout.splitlines()
    found = command.json("status", fetching, "fetch#1[4]")
    assert text[0].startswith(f"fetch[3] of execution {fetching} completed after ")
    assert text[1:] == ["its result is 3"]
    assert (found["status"], found["attempt"], found["error"]["type"]) == ("FAILED", 1, "type 0")
    assert "not fetch[3]" in command("status", fetching, "fetch[3]", "--watch").stderr
    log = [event["event_type"] for event in command.json("events", fetching, "fetch[3]")]
    assert log == ["iteration_started", "action_started", "action_completed", "iteration_completed"]
    nothing = f"execution {fetching} has no step fech; noetl-broker status {fetching} lists its steps"
    command.refuses(
        [
            (f"{fetching} fetch[40]", 1, f"fetch of execution {fetching} has no item 40: its items are 0 to 39"),
            (f"{fetching} fech[1]", 1, nothing),
            (f"{fetching} start[0]", 1, f"start of execution {fetching} has no item 0 that is known: it does not"),
        ],
        "explain",
    )


def test_an_item_that_a_worker_ran_is_read_from_the_result(command: Command, database: Database) -> None:
    """It has no row; the result of its step has its result or its error."""
    started = start_whole(command, database)
    failed = [{"index": 1, "error": {"type": "KeyError", "message": "'city'"}}]
    complete(database, {"data": [7, None], "meta": {"failed": failed}})
    first, second = (command.json("status", started, f"fetch[{n}]") for n in (0, 1))
    assert (first["status"], first["result"], first["by_worker"]) == ("COMPLETED", 7, True)
    assert (second["status"], second["error"]) == ("FAILED", failed[0]["error"])
    assert "fetch of execution" in command("explain", started, "fetch[2]").stderr


def test_what_a_worker_reports_of_its_items_is_shown(command: Command, database: Database) -> None:
    """In the same column as items that are jobs. Single items are not known yet."""
    whole = start_whole(command, database)
    report = '{"done": 1125, "failed": 79, "total": 5000, "errors": {"KeyError": 70, "timeout": 4}, "other_types": 2}'
    rows(database, "select noetl.report_progress(queue_id, 'w', 1, %s) from noetl.lease_jobs('w')", report)
    lines, said = command("status", whole).stdout.splitlines(), explained(command, whole)
    [step] = [line for line in lines if line.startswith("fetch  python")]
    assert "  RUNNING    1,204 of 5,000, 79 failed, " in step
    assert "/s, about " in step
    assert "its worker reports 1,204 of 5,000, 79 failed" in said
    by_type = "79 items failed, by type of error: KeyError 70, timeout 4, 2 other types 5"
    assert [by_type in text for text in (lines, said)] == [True, True]
    assert not any("shows the first" in line for line in said)


def test_the_items_of_an_ended_job_are_counted(command: Command, database: Database) -> None:
    """From the result of the step, with the first failed items by index. They have no logs of their own."""
    ended = start_whole(command, database)
    failed = [{"index": index, "error": {"type": f"T{index % 2}", "message": f"no {index}"}} for index in range(5, 30)]
    complete(database, {"data": [1] * 5 + [None] * 25, "meta": {"failed": failed}})
    lines = command("status", ended).stdout.splitlines()
    [step] = [line for line in lines if line.startswith("fetch  python")]
    assert "  COMPLETED  30 of 30, 25 failed  " in step
    assert "25 items failed, by type of error: T1 13, T0 12" in lines
    assert f"fetch: 30 of 30, 25 failed; noetl-broker explain {ended} fetch lists them" in explained(command, ended)
    said = explained(command, ended, "fetch")
    assert "its items: 30 of 30, 25 failed" in said
    at = said.index("the failed items, by index:")
    assert said[at + 1 : at + 22] == [*(f"fetch[{n}]: T{n % 2}: no {n}" for n in range(5, 25)), "… and 5 more"]
    command.refuses([
        (f"logs {ended} fetch[7]", 1, f"they have one log: noetl-broker logs {ended} fetch"),
        (f"logs {ended} fetch[999]", 1, "has no item 999"),
        (f"status {ended} nope", 1, f"execution {ended} has no step nope; noetl-broker status"),
        (f"status {ended} fetch", 2, f"noetl-broker explain {ended} fetch shows it"),
    ])  # fmt: skip


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


def test_an_item_that_waits_for_a_retry_is_shown(command: Command, database: Database) -> None:
    """Beside those that ended; a caught item has not failed, and has its error and the result of its `catch`."""
    retrying = begin(command, database, RETRIED)
    rows(database, FAIL_ONE % ("busy", "true"))
    rows(database, FAIL_ONE % ("bad", "false"))
    decide(database)
    [found] = command.json("status", retrying)["iterators"]
    assert (found["ended"], found["failed"], found["retrying"]) == (1, 0, 1)
    assert "1 of 3, 1 waits for a retry" in command("status", retrying).stdout
    text = command("explain", retrying, "fetch[0]").stdout
    assert "1 earlier attempt failed: busy: no" in text
    assert "fetch[0] will be retried in " in text
    assert 'it failed: bad: no; its catch gave {"bad": 1}' in command("explain", retrying, "fetch[1]").stdout
    log = [event["event_type"] for event in command.json("events", retrying, "fetch[0]")]
    assert log == ["iteration_started", "action_started", "action_failed", "action_retry"]
