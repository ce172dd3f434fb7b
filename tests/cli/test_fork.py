"""`fork`: a new execution that copies the results of another and continues from a step."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Command, decide, rows, write_playbook
from tests.postgres import Database

LOAD = """\
workload: {city: Rome}
workflow:
  - {step: start, next: fetch}
  - {step: fetch, type: python, code: "def main(): ...", next: [{step: load, args: {n: "{{ result.n }}"}}]}
  - {step: load, type: python, code: "def main(n=0): ...", next: end}
  - {step: end}
"""
ARGS = "select action::jsonb -> 'args' from noetl.queue where execution_id = %s"


@pytest.fixture
def done(command: Command, database: Database) -> int:
    """Run an execution to its end; give its id."""
    command("register", write_playbook(command.folder, LOAD, path="examples/load"))
    started = int(command("start", "examples/load", "--payload", '{"city": "Oslo"}').stdout)
    for _ in range(2):
        decide(database)
        rows(database, "select noetl.complete_job(queue_id, 'w', attempts, '{\"n\": 3}') from noetl.lease_jobs('w')")
    decide(database)
    return started


def test_a_fork_prints_its_id_and_the_results_that_it_has(command: Command, database: Database, done: int) -> None:
    """Only the id is on stdout, for scripts; the workload is that of the other."""
    answer = command("fork", done, "--from", "load")
    assert answer.stderr == "it starts from load with the results of fetch\n"
    new = int(answer.stdout)
    decide(database)
    assert rows(database, ARGS, new) == [({"n": 3},)]
    assert rows(database, "select workload, forked_from from noetl.execution where execution_id = %s", new) == [
        ({"city": "Oslo"}, done)
    ]
    assert [command(name, *more).exit_code for name, *more in (("replay", new), ("verify", new, "--deep"))] == [0, 0]
    file = write_playbook(command.folder, LOAD, path="examples/load")
    assert command("replay", new, "--against", file).exit_code == 0


def test_a_fork_replaces_a_result_with_a_given_one(command: Command, database: Database, done: int) -> None:
    """The transition into the step sees it."""
    document = json.loads(command("fork", done, "--from", "load", "--set", 'fetch.result={"n": 9}', "--json").stdout)
    new = int(document.pop("execution_id"))
    assert document == {
        "forked_from": str(done), "from": "load", "path": "examples/load", "version": 1, "taken": ["fetch"],
        "left_out": [],
    }  # fmt: skip
    decide(database)
    assert rows(database, ARGS, new) == [({"n": 9},)]


def test_a_fork_can_use_another_playbook(command: Command, database: Database, done: int) -> None:
    """It is registered, once, and the fork runs on that version."""
    changed = LOAD.replace("result.n", "result.n * 2").replace("end}\n  - {step: end}", "check}\n  - {step: check}")
    file = write_playbook(command.folder, changed, path="examples/load")
    first = command("fork", done, "--from", "load", "--playbook", file)
    assert first.stderr.splitlines()[0] == "registered examples/load version 2"
    second = command("fork", done, "--from", "load", "--version", 2)
    third = command("fork", done, "--from", "load", "--playbook", file)
    decide(database)
    for answer in (first, second, third):
        assert rows(database, ARGS, int(answer.stdout)) == [({"n": 6},)]
    assert rows(database, "select version from noetl.execution where forked_from is not null") == [(2,)] * 3


def test_a_playbook_that_is_registered_under_an_older_version_is_not_registered_again(
    command: Command, database: Database, done: int
) -> None:
    """The fork runs on the version with its text."""
    old = write_playbook(command.folder, LOAD, path="examples/load").read_text()
    command("register", write_playbook(command.folder, LOAD.replace("n:", "m:"), path="examples/load"))
    file = command.folder / "old.yaml"
    file.write_text(old)
    new = int(command("fork", done, "--from", "load", "--playbook", file).stdout)
    assert rows(database, "select version from noetl.execution where execution_id = %s", new) == [(1,)]


def test_one_key_forks_once(command: Command, done: int) -> None:
    """However often the command is repeated."""
    first, second = (command("fork", done, "--from", "load", "--idempotency-key", "k").stdout for _ in range(2))
    assert first == second != ""


def test_a_key_of_another_execution_is_refused_with_its_id(command: Command, database: Database, done: int) -> None:
    """A start with this key is no fork; another execution's fork is none either. A fork is no start."""
    key = ("--idempotency-key", "monday")
    started = int(command("start", "examples/load", *key).stdout)
    decide(database)
    answers = [command("fork", execution_id, "--from", "load", *key) for execution_id in (started, done)]
    used = "noetl-broker: the idempotency key monday of examples/load is used: execution"
    assert [(answer.exit_code, answer.stdout, answer.stderr) for answer in answers] == [
        (1, "", f"{used} {started} was started with it; choose another key\n")
    ] * 2
    new = int(command("fork", done, "--from", "load", "--idempotency-key", "tuesday").stdout)
    forked = command("start", "examples/load", "--idempotency-key", "tuesday")
    assert (forked.exit_code, forked.stdout) == (1, "")
    assert f"tuesday of examples/load is used: execution {new} was forked from {done} with it" in forked.stderr
    assert rows(database, "select count(*) from noetl.execution") == [(3,)]


@pytest.mark.parametrize(
    "arguments,code,complaint",
    [
        (["--from", "laod"], 2, "playbook examples/load has no step laod; did you mean `load`?"),
        (["--from", "load", "--set", "fetch=3"], 2, "is not STEP.result=JSON"),
        (["--from", "load", "--set", "fetch.result=three"], 2, "is not JSON"),
        (["--from", "load", "--set", 'fetch.result={"n": NaN}'], 2, "is not JSON"),
        (["--from", "load", "--set", 'fetch.result={"n": 1e400}'], 2, "the number 1e400 is too large"),
        (["--from", "load", "--set", 'fetch.result={"n": "\\u0000"}'], 2, "the database refuses the value"),
        (["--from", "load", "--set", "fetch.result={}"], 2, "step load cannot be entered with these results"),
        (["--from", "load", "--version", "7"], 1, "examples/load version 7 is registered; its latest version is 1"),
        (["--from", "load", "--version", "1", "--playbook", "x"], 2, "give one of them"),
        (["--from", "load", "--playbook", "missing.yaml"], 2, "missing.yaml cannot be read"),
        ([], 2, "--from"),
    ],
)
def test_an_impossible_fork_is_refused(
    command: Command, database: Database, done: int, arguments: list[Any], code: int, complaint: str
) -> None:
    """In one sentence, and nothing is written."""
    answer = command("fork", done, *arguments)
    assert answer.exit_code == code
    assert complaint in answer.stderr
    assert rows(database, "select count(*) from noetl.execution") == [(1,)]


def test_a_playbook_with_errors_is_not_registered(command: Command, database: Database, done: int) -> None:
    """Its errors are printed."""
    file = write_playbook(command.folder, LOAD.replace("next: end", "next: ende"), path="examples/load")
    answer = command("fork", done, "--from", "load", "--playbook", file)
    assert answer.exit_code == 1
    assert "there is no step `ende`" in answer.stderr
    assert "has errors; nothing was done" in answer.stderr
    assert rows(database, "select count(*) from noetl.catalog") == [(1,)]
