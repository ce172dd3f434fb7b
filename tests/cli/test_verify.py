"""`verify`: what an operator sees when all is well, and when it is not."""

from __future__ import annotations

import json

import pytest

from noetl_broker.store.verify import CHECKS, TABLES, TURNS
from tests.cli.conftest import Command, execute, write_playbook
from tests.postgres import Database

FETCH = """\
workflow:
  - {step: start, next: fetch}
  - {step: fetch, type: python, code: "def main(): return 1", next: end}
  - {step: end}
"""


@pytest.fixture
def started(command: Command) -> int:
    """Start an execution and let a broker read its start: a job waits; give its id."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    started = int(command("start", "examples/fetch").stdout)
    assert command.run("run", "--drain").returncode == 0
    return started


def test_each_invariant_has_a_row(command: Command, started: int) -> None:
    """With its count, and the sum of all at the end; exit 0."""
    answer = command("verify")
    head, *lines, told = answer.stdout.splitlines()
    assert answer.exit_code == 0
    assert head.split() == ["invariant", "broken", "what", "must", "hold"]
    assert [line.split(maxsplit=2) for line in lines] == [[check.invariant, "0", check.sentence] for check in CHECKS]
    assert told.startswith("1 executions, 1 that run, ")
    assert told.endswith(": all hold")
    assert command("verify", started).exit_code == 0


def test_one_that_is_over_is_not_counted_as_one_that_runs(command: Command, database: Database, started: int) -> None:
    """Asked for by its id, as by its age."""
    execute(database, "select noetl.cancel_execution(execution_id) from noetl.execution")
    assert command("run", "--drain").exit_code == 0
    for scope in ([started], ["--all"]):
        assert command("verify", *scope).stdout.splitlines()[-1].startswith("1 executions, 0 that run, ")


def test_a_fault_is_told_with_its_execution_and_ends_with_1(command: Command, database: Database, started: int) -> None:
    """As many examples as are asked for, below the rows."""
    execute(database, "update noetl.queue set status = 'cancelled'")
    answer = command("verify", "--examples", 1)
    assert answer.exit_code == 1
    *_, visit, standstill, told = answer.stdout.splitlines()
    assert visit == f"I2 execution {started}: visit {started}:fetch lives, and its job is cancelled"
    assert standstill.startswith(f"I3 execution {started}: runs since ")
    assert told.endswith(": 2 broken")
    assert not [line for line in command("verify", "--examples", 0).stdout.splitlines() if "execution " in line[:15]]


def test_json_has_every_invariant_with_its_examples(command: Command, database: Database, started: int) -> None:
    """One document; with `--deep` also those that the core tells."""
    execute(database, "update noetl.workflow set status = 'FAILED' where step_name = 'fetch'")
    answer = command("verify", "--deep", "--all", "--json")
    found = json.loads(answer.stdout)
    assert answer.exit_code == 1
    checks = [(entry["invariant"], entry["sentence"]) for entry in found["invariants"]]
    assert checks == [(check.invariant, check.sentence) for check in (*CHECKS, TABLES, TURNS)]
    broken = [entry for entry in found["invariants"] if entry["broken"]]
    assert [(entry["invariant"], entry["broken"]) for entry in broken] == [("I6", 1)]
    assert [example["execution_id"] for example in broken[0]["examples"]] == [started]
    assert (found["executions"], found["running"], found["since_seconds"], found["broken"]) == (1, 1, None, 1)


def test_a_span_is_read_with_its_unit(command: Command, database: Database, started: int) -> None:
    """Seconds, minutes, hours and days; anything else is refused with what to write."""
    del started
    execute(database, "update noetl.execution set started_at = started_at - interval '2 hours'")
    execute(database, "update noetl.execution_state set last_at = last_at - interval '2 hours'")

    def looked_into(*options: str) -> int:
        return int(json.loads(command("verify", *options, "--json").stdout)["executions"])

    spans = ("7190s", "119m", "1h", "7300s", "121m", "3h", "1d")
    assert [looked_into("--since", span) for span in spans] == [0, 0, 0, 1, 1, 1, 1]
    assert [looked_into(), looked_into("--all")] == [0, 1]
    refused = command("verify", "--since", "1 hour")
    assert refused.exit_code == 2
    assert "'1 hour' is no time span; write 90s, 10m, 1h or 2d" in refused.stderr


def test_one_of_an_id_a_span_and_all_is_enough(command: Command) -> None:
    """Two of them contradict each other; an execution that is not there is told."""
    assert [command("verify", *both).exit_code for both in (("5", "--all"), ("5", "--since", "1h"))] == [2, 2]
    missing = command("verify", 5)
    assert missing.exit_code == 1
    assert missing.stderr == "noetl-broker: no execution 5; noetl-broker executions lists them\n"
