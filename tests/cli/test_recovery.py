"""`dead-letters`, `reevaluate` and `retry`: what went wrong comes back, one by one or many at once."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.cli.conftest import Command, decide, execute, rows, write_playbook
from tests.postgres import Database

LOAD = """\
workflow:
  - {step: start, next: fetch}
  - {step: fetch, type: python, code: "def main(): ...", next: load}
  - {step: load, type: python, code: "def main(): ...", args: {n: "{{ fetch.n }}"}, next: end}
  - {step: end}
"""


@pytest.fixture
def path(command: Command) -> str:
    """Register a playbook of two steps; give its path."""
    command("register", write_playbook(command.folder, LOAD, path="examples/load"))
    return "examples/load"


def answer(database: Database, **errors: str) -> None:
    """Run a broker, end all jobs (those of the steps in `errors` with that), and run a broker again."""
    decide(database)
    ended = """
        select case when %s::jsonb ? node_name
          then noetl.fail_job(queue_id, 'w', attempts, jsonb_build_object('message', %s::jsonb ->> node_name))
          else noetl.complete_job(queue_id, 'w', attempts, '{"n": 3}') end
        from noetl.lease_jobs('w', 1000)"""
    rows(database, ended, json.dumps(errors), json.dumps(errors))
    decide(database)


def fail_in_load(
    command: Command, database: Database, path: str, *, count: int = 1, error: str = "disk full"
) -> list[int]:
    """Start executions that fail in the step load; give their ids."""
    started = [int(command("start", path).stdout) for _ in range(count)]
    answer(database)
    answer(database, load=error)
    return started


def set_aside(command: Command, database: Database, path: str) -> int:
    """Start an execution on which deciding fails by a fault that is mended at once; give its id."""
    started = int(command("start", path).stdout)
    execute(database, f"alter table noetl.turn add constraint poison check (execution_id <> {started})")
    decide(database)
    execute(database, "alter table noetl.turn drop constraint poison")
    return started


def test_what_was_set_aside_is_listed(command: Command, database: Database, path: str) -> None:
    """With the execution, the event and the reason; filters choose."""
    stuck = set_aside(command, database, path)
    header, line = command("dead-letters").stdout.splitlines()
    assert header.split() == ["set", "aside", "execution", "path", "event", "of", "reason"]
    assert f"{stuck}  examples/load  execution_start" in line

    def found(*filters: str) -> list[int]:
        return [letter["execution_id"] for letter in json.loads(command("dead-letters", *filters, "--json").stdout)]

    matching = [
        found("--path", "examples/*"),
        found("--reason", "POISON"),
        found("--since", "1h"),
        found("--reason", "new*turn*pois"),
    ]
    assert matching == [[stuck]] * 4
    assert [found("--path", "examples"), found("--reason", "nothing"), found("--since", "2999-01-01")] == [[], [], []]


@pytest.mark.parametrize("name", ["reevaluate", "retry"])
def test_what_was_set_aside_is_put_back(command: Command, database: Database, path: str, name: str) -> None:
    """The broker decides again, and the execution goes on where it stood."""
    stuck = set_aside(command, database, path)
    answer_of_it = command(name, stuck)
    assert (answer_of_it.exit_code, answer_of_it.stdout) == (0, f"execution {stuck}: 1 event is put back\n")
    answer(database)
    answer(database)
    assert rows(database, "select status from noetl.execution") == [("COMPLETED",)]
    assert command("dead-letters", "--json").stdout == "[]\n"


def test_reevaluating_twice_is_harmless(command: Command, database: Database, path: str) -> None:
    """The second finds nothing; one turn is taken."""
    stuck = set_aside(command, database, path)
    command("reevaluate", stuck)
    again = command("reevaluate", stuck, "--json")
    assert (again.exit_code, json.loads(again.stdout)) == (0, {"execution_id": stuck, "put_back": 0})
    decide(database)
    assert command("reevaluate", stuck).stdout == f"execution {stuck} has no mail that was set aside or lost\n"
    assert rows(database, "select count(*) from noetl.turn") == [(1,)]


def test_mail_that_somebody_deleted_comes_back(command: Command, database: Database, path: str) -> None:
    """An event without a turn and without mail is one that the broker has not read; its own events are none."""
    started = int(command("start", path).stdout)
    decide(database)
    rows(database, "select noetl.complete_job(queue_id, 'w', attempts, '{}') from noetl.lease_jobs('w')")
    execute(database, "delete from noetl.inbox")
    assert command("reevaluate", started).stdout == f"execution {started}: 1 event is put back\n"
    decide(database)
    assert rows(database, "select turn, outcome from noetl.turn order by turn") == [(1, "decided"), (2, "decided")]


def test_a_failed_execution_is_brought_back_once(command: Command, database: Database, path: str) -> None:
    """The first answer says from where it goes on; the second where it has got to."""
    [failed] = fail_in_load(command, database, path)
    first = json.loads(command("retry", failed, "--json").stdout)
    new = first.pop("brought_back_as")
    assert first == {"execution_id": failed, "steps": ["load"], "taken": ["fetch"]}
    answer(database, load="disk full again")
    assert command("retry", failed).stdout == (
        f"execution {failed} was brought back as {new}, which is FAILED;"
        f" noetl-broker retry {new} brings that one back\n"
    )
    last = command("retry", new).stdout
    assert last.endswith(f"goes on from load; it brings back {new}\n")
    answer(database)
    assert rows(database, "select status from noetl.execution order by execution_id") == [
        ("FAILED",),
        ("FAILED",),
        ("COMPLETED",),
    ]


def test_the_new_one_says_where_it_comes_from(command: Command, database: Database, path: str) -> None:
    """In its headline."""
    [failed] = fail_in_load(command, database, path)
    new = json.loads(command("retry", failed, "--json").stdout)["brought_back_as"]
    decide(database)
    assert command("status", new).stdout.splitlines()[0].endswith(f", forked from {failed}")
    assert command("replay", new).exit_code == 0


def test_what_cannot_be_retried_says_what_can_be_done(command: Command, database: Database, path: str) -> None:
    """A running one, one that has ended well, one that is not there."""
    started = int(command("start", path).stdout)
    running = command("retry", started)
    assert running.stderr == (
        f"noetl-broker: execution {started} is running, and nothing of it was set aside;"
        f" noetl-broker explain {started} says what it waits for\n"
    )
    answer(database)
    answer(database)
    ended = command("retry", started)
    assert ended.stderr == (
        f"noetl-broker: execution {started} has not failed, it is COMPLETED;"
        f" noetl-broker fork {started} --from STEP goes on from any step of it\n"
    )
    missing = command("retry", 5)
    assert missing.stderr == "noetl-broker: no execution 5; noetl-broker executions lists them\n"
    assert [running.exit_code, ended.exit_code, missing.exit_code, command("reevaluate", 5).exit_code] == [1, 1, 1, 1]


def test_many_are_counted_before_they_are_brought_back(command: Command, database: Database, path: str) -> None:
    """Without --yes nothing is done; with it each is, once; children and those that came back are left out."""
    fail_in_load(command, database, path, count=3)
    others = fail_in_load(command, database, path, error="no network")
    preview = command("retry", "--failed-step", "load")
    assert preview.exit_code == 0
    assert [line.split()[:3] for line in preview.stdout.splitlines()[1:3]] == [
        ["3", "examples/load", "load"],
        ["1", "examples/load", "load"],
    ]
    assert preview.stdout.endswith("failed executions come back: 4 executions; nothing was done, --yes does it\n")
    assert rows(database, "select count(*) from noetl.execution") == [(4,)]

    done = command("retry", "--reason", "disk", "--yes", "--rate", 1000)
    assert (done.exit_code, done.stdout) == (0, "failed executions come back: 3 of 3 executions\n")
    rest = json.loads(command("retry", "--all", "--json").stdout)
    assert rest == {
        "found": 1,
        "done": [],
        "groups": [{"path": "examples/load", "step": "load", "reason": "no network", "executions": 1}],
    }
    told = json.loads(command("retry", "--since", "1h", "--yes", "--json").stdout)
    assert ([entry["execution_id"] for entry in told["done"]], told["failed"]) == (others, [])
    assert command("retry", "--all", "--yes").stdout == "failed executions come back: 0 of 0 executions\n"


def test_many_are_put_back_by_filter(command: Command, database: Database, path: str) -> None:
    """Executions are counted, not events."""
    stuck = [set_aside(command, database, path) for _ in range(2)]
    assert command("reevaluate", "--reason", "poison").stdout.endswith(
        "2 executions; nothing was done, --yes does it\n"
    )
    assert rows(database, "select count(*) from noetl.dead_letter") == [(2,)]
    done = json.loads(command("reevaluate", "--all", "--yes", "--json").stdout)
    assert done["done"] == [{"execution_id": one, "put_back": 1} for one in stuck]


def test_many_are_treated_no_faster_than_asked(command: Command, database: Database, path: str) -> None:
    """Four at twenty a second take three twentieths, at the least."""
    fail_in_load(command, database, path, count=4)
    began = time.monotonic()
    assert command("retry", "--all", "--yes", "--rate", 20).stdout.endswith("4 of 4 executions\n")
    assert time.monotonic() - began >= 0.15


def test_one_that_cannot_come_back_does_not_stop_the_others(command: Command, database: Database, path: str) -> None:
    """It is told, and the exit code is 1."""
    first, second = fail_in_load(command, database, path, count=2)
    execute(database, f"update noetl.turn set outcome = 'duplicate' where execution_id = {first} and turn = 2")
    answer_of_it = command("retry", "--all", "--yes")
    assert (answer_of_it.exit_code, answer_of_it.stdout) == (1, "failed executions come back: 1 of 2 executions\n")
    assert f"execution {first} cannot be followed to its failure" in answer_of_it.stderr
    assert rows(database, "select forked_from from noetl.execution where forked_from is not null") == [(second,)]


@pytest.mark.parametrize(
    "arguments,complaint",
    [
        (["retry"], "retry takes the id of an execution, or filters for many"),
        (["retry", "5", "--all"], "not both"),
        (["reevaluate", "5", "--path", "x"], "not both"),
        (["reevaluate"], "reevaluate takes the id of an execution, or filters for many"),
        (["retry", "--since", "yesterday"], "'yesterday' is neither a span"),
    ],
)
def test_unclear_wishes_are_2(command: Command, arguments: list[Any], complaint: str) -> None:
    """One, or many, or all: never by chance."""
    answer_of_it = command(*arguments)
    assert answer_of_it.exit_code == 2
    assert complaint in answer_of_it.stderr


def test_a_child_that_comes_back_says_that_its_parent_does_not_wait(
    command: Command, database: Database, path: str
) -> None:
    """Many at once leave children to their parents."""
    body = f"workflow:\n  - {{step: start, next: call}}\n  - {{step: call, type: playbook, path: {path}}}\n"
    command("register", write_playbook(command.folder, body, path="examples/parent"))
    parent = int(command("start", "examples/parent").stdout)
    answer(database)
    answer(database, load="disk full")
    assert json.loads(command("retry", "--all", "--json").stdout)["found"] == 1
    [(child,)] = rows(database, "select execution_id from noetl.execution where parent_execution_id is not null")
    answer_of_it = command("retry", child)
    assert (
        answer_of_it.stderr == f"its parent {parent} has been told of the failure, and does not wait for the new one\n"
    )
