"""`fork`: a new execution that copies the results of another and continues from a step."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command, begin, complete, decide, rows, write_playbook
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
    started = begin(command, database, LOAD, "--payload", '{"city": "Oslo"}', path="examples/load")
    for _ in range(2):
        complete(database, {"n": 3})
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
    document = command.json("fork", done, "--from", "load", "--set", 'fetch.result={"n": 9}')
    new = int(document.pop("execution_id"))
    assert document == {
        "forked_from": str(done), "from": "load", "path": "examples/load", "version": 1, "taken": ["fetch"],
        "left_out": [],
    }  # fmt: skip
    decide(database)
    assert rows(database, ARGS, new) == [({"n": 9},)]


def test_a_fork_can_use_another_playbook(command: Command, database: Database, done: int) -> None:
    """It is registered, once, unless an older version has its text; the fork runs on that version."""
    old = write_playbook(command.folder, LOAD, path="examples/load").read_text()
    changed = LOAD.replace("result.n", "result.n * 2").replace("end}\n  - {step: end}", "check}\n  - {step: check}")
    file = write_playbook(command.folder, changed, path="examples/load")
    call = ("fork", done, "--from", "load")
    first = command(*call, "--playbook", file)
    assert first.stderr.splitlines()[0] == "registered examples/load version 2"
    forks = [first, command(*call, "--version", 2), command(*call, "--playbook", file)]
    decide(database)
    assert [rows(database, ARGS, int(answer.stdout)) for answer in forks] == [[({"n": 6},)]] * 3
    file.write_text(old)
    assert command(*call, "--playbook", file).exit_code == 0
    found = rows(database, "select version from noetl.execution where forked_from is not null order by execution_id")
    assert found == [(2,), (2,), (2,), (1,)]


def test_one_key_forks_once(command: Command, database: Database, done: int) -> None:
    """However often the command is repeated. Another fork or start with it is refused."""
    [new] = {int(command("fork", done, "--from", "load", "--idempotency-key", "k").stdout) for _ in range(2)}
    decide(database)
    used = f"the idempotency key k of examples/load is used: execution {new} was forked from {done} with it; choose"
    command.refuses([(call, 1, used) for call in (
        f"fork {new} --from load --idempotency-key k", "start examples/load --idempotency-key k",
    )])  # fmt: skip


def test_an_impossible_fork_is_refused(command: Command, database: Database, done: int) -> None:
    """In one sentence, and nothing is written. The errors of a playbook are printed, and it is not registered."""
    wrong = write_playbook(command.folder, LOAD.replace("next: end", "next: ende"), path="examples/load")
    cases = [
        (["--from", "laod"], 2, "playbook examples/load has no step laod; did you mean `load`?"),
        (["--from", "load", "--set", "fetch=3"], 2, "is not STEP.result=JSON"),
        (["--from", "load", "--set", "fetch.result=three"], 2, "is not JSON"),
        (["--from", "load", "--set", 'fetch.result={"n": NaN}'], 2, "is not JSON"),
        (["--from", "load", "--set", 'fetch.result={"n": 1e400}'], 2, "the number 1e400 is too large"),
        (["--from", "load", "--set", 'fetch.result={"n": "\\u0000"}'], 2, "a text has the character U+0000"),
        (["--from", "load", "--set", "fetch.result={}"], 2, "step load cannot be entered with these results"),
        (["--from", "load", "--version", "7"], 1, "examples/load version 7 is registered; its latest version is 1"),
        (["--from", "load", "--version", "1", "--playbook", "x"], 2, "give one of them"),
        (["--from", "load", "--playbook", "missing.yaml"], 2, "missing.yaml cannot be read"),
        (["--from", "load", "--playbook", str(wrong)], 1, "has errors; nothing was done"),
        ([], 2, "--from"),
    ]
    command.refuses([((done, *options), code, words) for options, code, words in cases], "fork")
    assert "there is no step `ende`" in command("fork", done, "--from", "load", "--playbook", wrong).stderr
    counts = "select (select count(*) from noetl.execution), (select count(*) from noetl.catalog)"
    assert rows(database, counts) == [(1, 1)]
