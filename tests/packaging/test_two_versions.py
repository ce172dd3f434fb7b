"""Two versions on one database, with real wheels: each pair works, or refuses with 78 and a word that helps."""

from __future__ import annotations

import json

import pytest

from noetl_broker.store.migrate import SERVED_VERSIONS
from tests.brokers import value
from tests.packaging.wheels import Program
from tests.postgres import Database
from tests.test_tidy import ROOT

EXAMPLE = str(ROOT / "playbooks" / "conditional.yaml")
LAST = SERVED_VERSIONS[-1]
SERVING = [("run", "--drain"), ("executions",)]


def do(program: Program, database: Database, *arguments: str) -> str:
    """Run a command that must work; gives what it printed."""
    answer = program.run(*arguments, database=database)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_an_old_program_goes_on_where_the_migration_says_so(
    installed: Program, additive: Program, empty_database: Database
) -> None:
    """So a schema is migrated first, and brokers are replaced one by one."""
    do(installed, empty_database, "migrate")
    do(additive, empty_database, "migrate")
    do(installed, empty_database, "register", EXAMPLE)
    do(installed, empty_database, "start", "examples/conditional")
    do(installed, empty_database, "run", "--drain")
    do(additive, empty_database, "run", "--drain")
    shown = json.loads(do(additive, empty_database, "executions", "--json"))
    assert [row["status"] for row in shown] == ["RUNNING"]


@pytest.mark.parametrize("command", SERVING)
def test_an_old_program_refuses_a_schema_that_does_not_serve_it(
    installed: Program, breaking: Program, empty_database: Database, command: tuple[str, ...]
) -> None:
    """A migration that says nothing serves only programs that know it."""
    do(breaking, empty_database, "migrate")
    answer = installed.run(*command, database=empty_database)
    assert answer.returncode == 78
    assert f"at version {LAST + 1}, this program serves up to {LAST}; upgrade the program" in answer.stderr


@pytest.mark.parametrize("command", SERVING)
def test_a_new_program_refuses_a_schema_that_nobody_migrated(
    installed: Program, additive: Program, empty_database: Database, command: tuple[str, ...]
) -> None:
    """It does not migrate by itself."""
    do(installed, empty_database, "migrate")
    answer = additive.run(*command, database=empty_database)
    assert answer.returncode == 78
    assert f"at version {LAST}, this program needs {LAST + 1}; run noetl-broker migrate" in answer.stderr


async def test_an_old_program_does_not_migrate_backwards(
    installed: Program, additive: Program, empty_database: Database
) -> None:
    """Nor does it touch what a newer one made."""
    do(additive, empty_database, "migrate")
    answer = installed.run("migrate", database=empty_database)
    assert (answer.returncode, "which this program does not know" in answer.stderr) == (78, True)
    assert await value(empty_database, "select max(version) from noetl.schema_version") == LAST + 1


def test_what_the_old_one_began_the_new_one_ends(
    installed: Program, additive: Program, empty_database: Database
) -> None:
    """A history of both is replayed without a difference."""
    do(installed, empty_database, "migrate")
    do(installed, empty_database, "register", EXAMPLE)
    do(installed, empty_database, "start", "examples/conditional")
    do(installed, empty_database, "run", "--drain")
    do(additive, empty_database, "migrate")
    [execution] = json.loads(do(additive, empty_database, "executions", "--json"))
    do(additive, empty_database, "cancel", str(execution["execution_id"]))
    do(additive, empty_database, "run", "--drain")
    do(additive, empty_database, "replay", str(execution["execution_id"]))
    do(additive, empty_database, "verify")
