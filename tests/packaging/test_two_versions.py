"""Two versions on one database: each pair works, or refuses with 78 and a helpful message."""

from __future__ import annotations

from pathlib import Path

from noetl_broker.store.connect.migrations import SERVED_VERSIONS
from tests.brokers import execute, register, rows, start, value
from tests.packaging.wheels import Program, next_version
from tests.postgres import Database

LAST = SERVED_VERSIONS[-1]
ADDITIVE = f"-- serves-from: {LAST}\nalter table noetl.execution add column note text;\n"
BREAKING = "alter table noetl.execution rename column error to fault;\n"
ONE_STEP = "workflow:\n- {step: start, next: a}\n- {step: a, type: python, code: x}\n"


def do(program: Program, database: Database, *arguments: str) -> None:
    """Run a command that must succeed."""
    answer = program.run(*arguments, database=database)
    assert answer.returncode == 0, answer.stderr


def refuse(program: Program, database: Database, message: str, *arguments: str) -> None:
    """Run a command that must end with 78 and this message."""
    answer = program.run(*arguments, database=database)
    assert (answer.returncode, message in answer.stderr) == (78, True), answer.stderr


async def test_both_versions_serve_a_newer_schema_that_allows_it(
    installed: Program, database: Database, tmp_path: Path
) -> None:
    """So the schema is migrated first, and brokers are replaced one by one. A replay finds no difference.

    The new program migrates nothing by itself, and the old one leaves the newer objects as they are.
    """
    additive = next_version(installed, tmp_path, ADDITIVE)
    await register(database, ONE_STEP)
    [before] = await start(database)
    do(installed, database, "run", "--drain")
    refuse(additive, database, f"at version {LAST}, this program needs {LAST + 1}; run noetl-broker migrate", "run")
    do(additive, database, "migrate")
    refuse(installed, database, "which this program does not know", "migrate")
    assert await value(database, "select max(version) from noetl.schema_version") == LAST + 1
    [after] = await start(database)
    do(installed, database, "run", "--drain")
    await execute(database, "select noetl.cancel_execution($1)", before)
    do(additive, database, "run", "--drain")
    assert await rows(database, "select execution_id, status from noetl.execution order by 1") == [
        (before, "CANCELLED"), (after, "RUNNING"),
    ]  # fmt: skip
    do(additive, database, "replay", str(before))
    do(additive, database, "verify")


def test_an_old_program_refuses_a_schema_that_does_not_serve_it(
    installed: Program, database: Database, tmp_path: Path
) -> None:
    """A migration that declares nothing serves only programs that know it."""
    do(next_version(installed, tmp_path, BREAKING), database, "migrate")
    for command in ("run", "executions"):
        refuse(installed, database, f"at version {LAST + 1}, this program serves up to {LAST}; upgrade", command)
