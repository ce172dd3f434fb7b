"""Two versions on one database, with real wheels: each pair works, or refuses with 78 and a helpful message."""

from __future__ import annotations

import json

from noetl_broker.store.migrations import SERVED_VERSIONS
from tests.brokers import value
from tests.packaging.wheels import Program
from tests.postgres import Database
from tests.test_tidy import ROOT

EXAMPLE = str(ROOT / "playbooks" / "conditional.yaml")

LAST = SERVED_VERSIONS[-1]
SERVING = [("run", "--drain"), ("executions",)]


def do(program: Program, database: Database, *arguments: str) -> str:
    """Run a command that must succeed; gives its output."""
    answer = program.run(*arguments, database=database)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


async def test_both_programs_serve_a_newer_schema_that_allows_it(
    installed: Program, additive: Program, empty_database: Database
) -> None:
    """So the schema is migrated first, and brokers are replaced one by one. A replay finds no difference.

    The old program does not migrate it.
    """
    do(installed, empty_database, "migrate")
    do(installed, empty_database, "register", EXAMPLE)
    before = started(installed, empty_database)
    do(installed, empty_database, "run", "--drain")
    do(additive, empty_database, "migrate")
    await refuses_to_migrate(installed, empty_database)
    after = started(installed, empty_database)
    do(installed, empty_database, "run", "--drain")
    do(additive, empty_database, "cancel", before)
    do(additive, empty_database, "run", "--drain")
    executions = json.loads(do(additive, empty_database, "executions", "--json"))
    assert {str(row["execution_id"]): row["status"] for row in executions} == {before: "CANCELLED", after: "RUNNING"}
    do(additive, empty_database, "replay", before)
    do(additive, empty_database, "verify")


def started(program: Program, database: Database) -> str:
    """Start an execution of the example; gives its id."""
    return str(json.loads(do(program, database, "start", "examples/conditional", "--json"))["execution_id"])


def refuse(program: Program, database: Database, message: str) -> None:
    """Each command that needs the schema ends with 78 and this message."""
    for command in SERVING:
        answer = program.run(*command, database=database)
        assert (command, answer.returncode, message in answer.stderr) == (command, 78, True), answer.stderr


def test_an_old_program_refuses_a_schema_that_does_not_serve_it(
    installed: Program, breaking: Program, empty_database: Database
) -> None:
    """A migration that declares nothing serves only programs that know it."""
    do(breaking, empty_database, "migrate")
    refuse(installed, empty_database, f"at version {LAST + 1}, this program serves up to {LAST}; upgrade the program")


async def refuses_to_migrate(program: Program, database: Database) -> None:
    """Assert that an old program leaves the objects of a newer one unchanged, also where it may serve them."""
    answer = program.run("migrate", database=database)
    assert (answer.returncode, "which this program does not know" in answer.stderr) == (78, True)
    assert await value(database, "select max(version) from noetl.schema_version") == LAST + 1


def test_a_new_program_refuses_a_schema_that_nobody_migrated(additive: Program, database: Database) -> None:
    """It does not migrate by itself."""
    refuse(additive, database, f"at version {LAST}, this program needs {LAST + 1}; run noetl-broker migrate")
