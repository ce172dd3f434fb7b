"""`dead-letters`, `reevaluate` and `retry`: one by one or many at once."""

from __future__ import annotations

import json
import time

import pytest

from tests.cli.conftest import Command, begin, decide, execute, rows, write_playbook
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
    """Run a broker, end all jobs (those of the steps in `errors` with this error), and run a broker again."""
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


def start_with_dead_letter(command: Command, database: Database, path: str) -> int:
    """Start an execution whose decision fails by a fault that is repaired at once; give its id."""
    started = int(command("start", path).stdout)
    execute(database, f"alter table noetl.turn add constraint poison check (execution_id <> {started})")
    decide(database)
    execute(database, "alter table noetl.turn drop constraint poison")
    return started


def test_dead_letters_are_listed_and_filtered(command: Command, database: Database, path: str) -> None:
    """With the execution, the event and the reason; filters choose."""
    stuck = start_with_dead_letter(command, database, path)
    header, line = command("dead-letters").stdout.splitlines()
    assert header.split() == ["set", "aside", "execution", "path", "event", "of", "reason"]
    assert f"{stuck}  examples/load  execution_start" in line

    def found(*filters: str) -> list[int]:
        return [int(letter["execution_id"]) for letter in command.json("dead-letters", *filters)]

    fitting = (("--path", "examples/*"), ("--error", "POISON"), ("--since", "1h"), ("--error", "new*turn*pois"))
    assert [found(*filters) for filters in fitting] == [[stuck]] * 4
    others = (("--path", "examples"), ("--error", "nothing"), ("--since", "2999-01-01"))
    assert [found(*filters) for filters in others] == [[]] * 3


def test_dead_letters_are_put_back(command: Command, database: Database, path: str) -> None:
    """The broker decides again, and the execution continues. A second call is harmless and finds nothing."""
    for name in ("reevaluate", "retry"):
        stuck = start_with_dead_letter(command, database, path)
        again = command(name, stuck)
        assert (again.exit_code, again.stdout) == (0, f"execution {stuck}: 1 event is put back\n")
        assert command.json("reevaluate", stuck) == {"execution_id": str(stuck), "put_back": 0}
        decide(database)
        assert command("reevaluate", stuck).stdout == f"execution {stuck} has no dead letters and no lost mail\n"
        answer(database)
        answer(database)
        assert rows(database, f"select status from noetl.execution where execution_id = {stuck}") == [("COMPLETED",)]
    assert command("dead-letters", "--json").stdout == "[]\n"


def test_a_failed_execution_is_retried_once(command: Command, database: Database, path: str) -> None:
    """The first answer names the step, the second the progress. The new one names its origin in its headline."""
    [failed] = fail_in_load(command, database, path)
    first = command.json("retry", failed)
    new = first.pop("recovered_as")
    assert (first["execution_id"], first["steps"], first["taken"]) == (str(failed), ["load"], ["fetch"])
    decide(database)
    assert command("status", new).stdout.splitlines()[0].endswith(f", continues {failed}")
    assert command("replay", new).exit_code == 0
    answer(database, load="disk full again")
    assert command("retry", failed).stdout == (
        f"execution {failed} is continued as {new}, which is FAILED; noetl-broker retry {new} retries that one\n"
    )
    last = command("retry", new).stdout
    assert last.endswith(f"continues from load; it retries {new}\n")
    answer(database)
    statuses = rows(database, "select status from noetl.execution order by execution_id")
    assert statuses == [("FAILED",), ("FAILED",), ("COMPLETED",)]


def test_retry_of_an_execution_that_did_not_fail_suggests_a_command(
    command: Command, database: Database, path: str
) -> None:
    """A completed one; `test_json` has a running one."""
    started = int(command("start", path).stdout)
    answer(database)
    answer(database)
    ended = f"execution {started} has not failed, it is COMPLETED; noetl-broker fork {started} --from STEP starts"
    command.refuses([(f"retry {started}", 1, ended)])


def test_many_executions_are_counted_before_they_are_retried(command: Command, database: Database, path: str) -> None:
    """Without --yes nothing is done. With it each is retried once, except children and those already retried."""
    fail_in_load(command, database, path, count=3)
    others = fail_in_load(command, database, path, error="no network")
    preview = command("retry", "--step", "load")
    assert preview.exit_code == 0
    assert [line.split()[:4] for line in preview.stdout.splitlines()[1:3]] == [
        ["3", "examples/load", "1", "load"],
        ["1", "examples/load", "1", "load"],
    ]
    assert preview.stdout.endswith("failed executions are retried: 4 executions; nothing was done, --yes does it\n")
    assert rows(database, "select count(*) from noetl.execution") == [(4,)]

    done = command("retry", "--error", "disk", "--yes", "--rate", 1000)
    assert (done.exit_code, done.stdout) == (0, "failed executions are retried: 3 of 3 executions\n")
    rest = command.json("retry", "--all")
    group = {"path": "examples/load", "version": 1, "step": "load", "reason": "no network", "executions": 1}
    unknown = {"latest": None, "outlook": None, "goes_on": None}
    assert rest == {"found": 1, "left_out": 3, "done": [], "groups": [{**group, "example": str(others[-1]), **unknown}]}
    left_out = "3 executions are left out, because a retry or a fork continues them already\n"
    assert left_out in command("retry", "--all").stdout
    document = command.json("retry", "--since", "1h", "--yes")
    assert ([int(entry["execution_id"]) for entry in document["done"]], document["failed"]) == (others, [])
    assert command("retry", "--all", "--yes").stdout.startswith(
        "no failed execution is left to retry; 4 executions are"
    )


def test_a_retry_continues_on_another_version(command: Command, database: Database, path: str) -> None:
    """The preview of many says that there is a newer one, which can go on, and why others cannot."""
    small, large = (int(command("start", path, "--payload", f'{{"n": {n}}}').stdout) for n in (1, 9))
    answer(database)
    answer(database, load="disk full")
    fixed = LOAD.replace("next: load}", 'next: [{when: "{{ workload.n < 5 }}", step: load}]}')
    command("register", write_playbook(command.folder, fixed, path=path))

    assert "failed executions are retried: 1 of 2 executions; nothing was done, --yes does it\n" in (
        command("retry", "--all", "--version", "latest").stdout
    )
    newer = "2 executions are of another version of examples/load; its latest is 2: --version latest continues on it"
    assert newer in command("retry", "--of-version", 1).stdout
    groups = command.json("retry", "--all", "--version", "latest")["groups"]
    other = "goes another way at fetch: starts load → ends COMPLETED"
    assert [(int(group["example"]), group["goes_on"], group["outlook"]) for group in groups] == [
        (small, True, "version 2: begins at load, keeps 1 result"),
        (large, False, other),
    ]
    done = command("retry", "--all", "--version", 2, "--yes")
    assert (done.exit_code, done.stdout) == (1, "failed executions are retried: 1 of 2 executions\n")
    assert f"execution {large} would have gone another way on version 2: turn 2, step fetch: starts load" in done.stderr
    hopeless = command("retry", "--all", "--version", "latest").stdout
    assert "it cannot be done for any of them: 1 execution; nothing was done\n" in hopeless
    assert "--or-from-start starts those anew that go another way; fork --from STEP --version " in hopeless
    anew = command("retry", large, "--version", "latest", "--or-from-start")
    assert "continues from start on version 2" in anew.stdout
    assert "it starts anew, because it would have gone another way: turn 2, step fetch" in anew.stderr
    assert f"execution {large} is continued as" in command("retry", large, "--version", "latest").stdout
    assert rows(database, "select forked_from, version from noetl.execution where version = 2 order by 1") == [
        (small, 2),
        (large, 2),
    ]
    listed = command("executions", "--version", 2).stdout
    assert [f"continues {one}" in listed for one in (small, large)] == [True, True]


ITEMS = """\
workflow:
  - {step: start, next: each}
  - step: each
    type: iterator
    collection: [1, 2]
    element: n
    mode: async
    concurrency: 2
    distribute: true
    task: {type: python, code: "def main(n): ...", args: {n: "{{ n }}"}}
"""
END_ITEMS = """
    select case (action::jsonb #>> '{args,n}')::int
      when 1 then noetl.complete_job(queue_id, 'w', attempts, '10')
      else noetl.fail_job(queue_id, 'w', attempts, '{"message": "no"}') end
    from noetl.lease_jobs('w', 10)
    order by queue_id"""


def test_a_preview_says_that_completed_items_are_kept(command: Command, database: Database) -> None:
    """Only the others run again."""
    begin(command, database, ITEMS)
    rows(database, END_ITEMS)
    decide(database)
    command("register", write_playbook(command.folder, f"{ITEMS}# fixed\n"))
    [group] = command.json("retry", "--all", "--version", "latest")["groups"]
    assert group["outlook"] == "version 2: begins at each, keeps the completed items of each"


def test_a_retry_names_a_newer_version(command: Command, database: Database, path: str) -> None:
    """After it, on stderr; an unknown version is refused."""
    [failed] = fail_in_load(command, database, path)
    command("register", write_playbook(command.folder, f"{LOAD}# fixed\n", path=path))
    missing = command("retry", failed, "--version", 7)
    retried = command("retry", failed)
    assert (missing.exit_code, retried.exit_code) == (1, 0)
    assert "no playbook examples/load version 7 is registered; its latest version is 2" in missing.stderr
    assert retried.stderr == "it has version 1; 2 is registered: --version latest continues on it\n"


def test_groups_leave_out_numbers_and_ids(command: Command, database: Database, path: str) -> None:
    """Messages that differ in nothing else are one group."""
    for number in (17, 18):
        fail_in_load(command, database, path, error=f"order {number} of cus_9fK{number} is gone")
    preview = command.json("retry", "--all")["groups"]
    assert [(group["executions"], group["reason"]) for group in preview] == [(2, "order … of … is gone")]


def test_dead_letters_of_many_executions_are_put_back_by_filter(
    command: Command, database: Database, path: str
) -> None:
    """Executions are counted, not events."""
    stuck = [start_with_dead_letter(command, database, path) for _ in range(2)]
    assert command("reevaluate", "--error", "poison").stdout.endswith("2 executions; nothing was done, --yes does it\n")
    assert rows(database, "select count(*) from noetl.dead_letter") == [(2,)]
    done = command.json("reevaluate", "--all", "--yes")
    assert done["done"] == [{"execution_id": str(one), "put_back": 1} for one in stuck]


def test_a_failed_retry_does_not_stop_the_others(command: Command, database: Database, path: str) -> None:
    """It is reported, and the exit code is 1. Four executions at twenty a second take at least 0.15 seconds."""
    first, *others = fail_in_load(command, database, path, count=4)
    execute(database, f"update noetl.turn set outcome = 'duplicate' where execution_id = {first} and turn = 2")
    began = time.monotonic()
    answer_of_it = command("retry", "--all", "--yes", "--rate", 20)
    assert time.monotonic() - began >= 0.15
    assert (answer_of_it.exit_code, answer_of_it.stdout) == (1, "failed executions are retried: 3 of 4 executions\n")
    assert f"execution {first} cannot be replayed up to its failure" in answer_of_it.stderr
    forks = rows(database, "select forked_from from noetl.execution where forked_from is not null order by 1")
    assert forks == [(other,) for other in others]


def test_retry_of_a_child_warns_that_its_parent_does_not_wait(command: Command, database: Database, path: str) -> None:
    """A retry of many leaves children to their parents."""
    body = f"workflow:\n  - {{step: start, next: call}}\n  - {{step: call, type: playbook, path: {path}}}\n"
    command("register", write_playbook(command.folder, body, path="examples/parent"))
    parent = int(command("start", "examples/parent").stdout)
    answer(database)
    answer(database, load="disk full")
    assert command.json("retry", "--all")["found"] == 1
    [(child,)] = rows(database, "select execution_id from noetl.execution where parent_execution_id is not null")
    answer_of_it = command("retry", child)
    assert (
        answer_of_it.stderr == f"its parent {parent} has received the failure and does not wait for the new execution\n"
    )
