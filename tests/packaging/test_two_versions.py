"""Minor releases on one database: each serves the schema of the one before and of the one after, and refuses others."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from noetl_broker import __version__
from noetl_broker.broker.model.rules import Rules
from noetl_broker.store.connect.migrations import SERVED_VERSIONS
from tests.brokers import broken_invariants, execute, register, rows, start, until, value
from tests.packaging.wheels import Program
from tests.postgres import Database
from tests.test_tidy import ROOT

LAST = SERVED_VERSIONS[-1]
EXAMPLES = ("diamond", "loop", "nested_iterator", "nested_child", "error_handling", "order_refund")
RULES = {
    "max_visits", "max_open_jobs", "max_nesting", "default_max_attempts", "undefined_when", "retry_owner",
    "template_max_output_chars", "template_max_steps", "max_turns", "max_fan_out", "max_payload_keys", "max_signals",
    "beside_noetl",
}  # fmt: skip
SPANNING = """
workflow:
- {step: start, next: hold}
- {step: hold, type: wait, signal: go, next: work}
- {step: work, type: python, code: "def main(): return 1"}
"""
ALL_ENDED = "select count(*) = 0 from noetl.execution where noetl.is_live(status)"
AT_WORK = """
    select array_agg(x.path)
    from noetl.execution x
    join noetl.schema_version v on v.version = $1 and v.applied_at between x.started_at and x.ended_at"""
EXAMPLES_ENDED = f"{ALL_ENDED} and path <> 'spanning'"


def do(program: Program, database: Database, *arguments: str) -> str:
    """Run a command that must succeed; return what it prints."""
    answer = program.run(*arguments, database=database)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def refuse(program: Program, database: Database, message: str, *arguments: str) -> None:
    """Run a command that must end with 78 and this message."""
    answer = program.run(*arguments, database=database)
    assert (answer.returncode, message in answer.stderr) == (78, True), answer.stderr


async def work(
    database: Database, *programs: Program, migrates: Program | None = None, ends: str = EXAMPLES_ENDED
) -> None:
    """Let a broker and a worker of each of these programs end all examples; `migrates` runs meanwhile."""
    with ExitStack() as stack:
        for program in programs:
            stack.enter_context(program.serve(database, "run"))
            stack.enter_context(program.serve(database, "worker"))
        for name in EXAMPLES:
            await start(database, f"examples/{name}", {"address": "", "rounds": 5 if migrates is None else 100})
        if migrates is not None:
            do(migrates, database, "migrate")
        await until(database, ends)


@pytest.mark.slow
async def test_a_minor_release_and_the_next_one_work_side_by_side(
    installed: Program, later: tuple[Program, Program], database: Database
) -> None:
    """On both schemas, alone and together, and while the schema is migrated. Both read what the other wrote."""
    old, new = installed, later[0]
    do(old, database, "register", *(str(file) for file in sorted((ROOT / "playbooks").glob("*.yaml"))))
    await register(database, SPANNING, path="spanning")
    await start(database, "spanning", count=2)
    await work(database, old)
    await work(database, new)
    await work(database, old, new, migrates=new)
    await work(database, old)
    await execute(
        database, "select noetl.signal_execution(execution_id, 'go') from noetl.execution where path = 'spanning'"
    )
    await work(database, new, ends=ALL_ENDED)
    found = await rows(
        database, "select path, status, count(*) from noetl.execution where parent_execution_id is null group by 1, 2"
    )
    expected = {(f"examples/{name}", "FAILED" if name == "order_refund" else "COMPLETED", 5) for name in EXAMPLES}
    assert {*found} == expected | {("spanning", "COMPLETED", 2)}
    assert await value(database, "select count(*) > 0 from noetl.event where event_type = 'job_noted'")
    assert "examples/loop" in await value(database, AT_WORK, LAST + 2)
    assert await broken_invariants(database) == {}
    for program in (old, new):
        do(program, database, "verify")
        do(program, database, "replay", "--all")


@pytest.mark.slow
async def test_a_release_refuses_schemas_that_are_further_away(
    installed: Program, later: tuple[Program, Program], database: Database
) -> None:
    """The message names the versions of both, and the remedy. `doctor` names them while an upgrade is under way."""
    old, (new, newest) = installed, later
    message = f"version {LAST} (noetl-broker {__version__}), this noetl-broker 0.3.0 serves {LAST + 2} to {LAST + 3}"
    for command in ("run --drain", "executions"):
        refuse(newest, database, f"{message}; run noetl-broker migrate", *command.split())
    assert schema_finding(new, database) == ("notice", LAST, "0.2.0", "Run noetl-broker migrate.")
    do(new, database, "migrate")
    assert schema_finding(new, database) == ("ok", LAST + 2, "0.2.0", None)
    assert schema_finding(old, database) == ("notice", LAST + 2, __version__, "Replace this program by the newer one.")
    refuse(
        old, database, f"(noetl-broker 0.2.0), this noetl-broker {__version__} serves {LAST}; migrate with", "migrate"
    )
    do(newest, database, "migrate")
    for command in ("run --drain", "executions"):
        message = f"version {LAST + 3} (noetl-broker 0.3.0), this noetl-broker {__version__} serves {LAST}"
        refuse(old, database, f"{message}; upgrade the program", *command.split())
    do(new, database, "executions")


def test_the_release_before_knows_the_rules_that_are_stored() -> None:
    """Brokers refuse unknown rules: a release reads a new rule, and the next minor release stores it."""
    assert Rules().pinned().keys() == RULES


def schema_finding(program: Program, database: Database) -> tuple[object, ...]:
    """What `doctor` says about the schema."""
    answer = program.run("doctor", "--json", database=database)
    [found] = [one for one in json.loads(answer.stdout)["findings"] if one["check"] == "schema"]
    return found["state"], found["facts"]["version"], found["facts"]["program"], found["do"]
