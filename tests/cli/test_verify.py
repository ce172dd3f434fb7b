"""`verify`: its output with and without broken invariants."""

from __future__ import annotations

import json

from noetl_broker.store.admin.verify import CHECKS, TABLES, TURNS
from tests.cli.conftest import Command, decide, execute
from tests.postgres import Database


def test_each_invariant_has_a_row(command: Command, started: int) -> None:
    """With its count, and the sum of all at the end; exit code 0."""
    answer = command("verify")
    head, *lines, summary = answer.stdout.splitlines()
    assert answer.exit_code == 0
    assert head.split() == ["invariant", "broken", "what", "must", "hold"]
    assert [line.split(maxsplit=2) for line in lines] == [[check.invariant, "0", check.sentence] for check in CHECKS]
    assert summary.startswith("1 execution, 1 that run, ")
    assert summary.endswith(": all hold")
    assert command("verify", started).exit_code == 0


def test_a_broken_invariant_names_its_execution_and_exits_with_1(
    command: Command, database: Database, started: int
) -> None:
    """Below the rows, with the requested number of examples."""
    execute(database, "update noetl.queue set status = 'cancelled'")
    answer = command("verify", "--examples", 1)
    assert answer.exit_code == 1
    *_, visit, standstill, summary = answer.stdout.splitlines()
    assert visit == f"I2 execution {started}: visit {started}:fetch lives, and its job is cancelled"
    assert standstill.startswith(f"I3 execution {started}: runs since ")
    assert summary.endswith(": 2 broken")
    assert not [line for line in command("verify", "--examples", 0).stdout.splitlines() if "execution " in line[:15]]


def test_json_has_every_invariant_with_its_examples(command: Command, database: Database, started: int) -> None:
    """One document; with `--deep` also the invariants that the core checks."""
    execute(database, "update noetl.workflow set status = 'FAILED' where step_name = 'fetch'")
    answer = command("verify", "--deep", "--all", "--json")
    found = json.loads(answer.stdout)
    assert answer.exit_code == 1
    checks = [(entry["invariant"], entry["sentence"]) for entry in found["invariants"]]
    assert checks == [(check.invariant, check.sentence) for check in (*CHECKS, TABLES, TURNS)]
    broken = [entry for entry in found["invariants"] if entry["broken"]]
    assert [(entry["invariant"], entry["broken"]) for entry in broken] == [("I6", 1)]
    assert [example["execution_id"] for example in broken[0]["examples"]] == [str(started)]
    assert (found["executions"], found["running"], found["since_seconds"], found["broken"]) == (1, 1, None, 1)


def test_without_an_id_the_last_ten_minutes_are_checked(command: Command, database: Database, started: int) -> None:
    """`--since` looks further back, `--all` at everything. What has ended does not run."""
    command("cancel", started)
    decide(database)
    for scope in (started, "--all"):
        assert command("verify", scope).stdout.splitlines()[-1].startswith("1 execution, 0 that run, ")
    execute(database, "update noetl.execution set started_at = started_at - interval '2 hours'")
    execute(database, "update noetl.execution_state set last_at = last_at - interval '2 hours'")

    def looked_into(*options: str) -> int:
        return int(command.json("verify", *options)["executions"])

    assert [looked_into("--since", span) for span in ("7190s", "7300s")] == [0, 1]
    assert [looked_into(), looked_into("--all")] == [0, 1]
    command.refuses([("5 --all", 2, ""), ("5 --since 1h", 2, "")], "verify")
