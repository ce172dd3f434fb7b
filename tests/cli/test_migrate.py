"""`migrate`: applied once, listed, or printed."""

from __future__ import annotations

import asyncio
import json

import pytest

from noetl_broker.errors import EXIT_SCHEMA
from tests.cli.conftest import Command
from tests.postgres import Database, named, psycopg_connect
from tests.roles import login


def test_migrate_applies_each_file_once(bare_command: Command) -> None:
    """The second time there is nothing to do. `--status` lists pending files, so that an operator checks before."""

    def pending() -> set[bool]:
        return {entry["pending"] for entry in bare_command.json("migrate", "--status")}

    assert [pending() for _ in range(2)] == [{True}, {True}]
    first, second = bare_command("migrate"), bare_command("migrate")
    assert first.stdout.startswith("applied 0001_tables.sql\n")
    assert (second.exit_code, second.stdout) == (0, "the schema is up to date\n")
    assert pending() == {False}


def test_sql_is_printed_without_a_database(lone_command: Command) -> None:
    """For operators who let no program change a schema."""
    answer = lone_command("migrate", "--sql", "--dsn", "postgresql://127.0.0.1:1/nowhere")
    assert answer.exit_code == 0
    assert answer.stdout.startswith("-- 0001_tables.sql\n")
    assert named("create table if not exists noetl.event") in answer.stdout


def test_roles_are_made_beside_the_schema(bare_command: Command) -> None:
    """In one command, any number of times; `--sql` prints them too."""
    first, second = bare_command("migrate", "--roles"), bare_command("migrate", "--roles", "--json")
    assert first.stdout.endswith("applied roles.sql\n")
    assert json.loads(second.stdout) == {"applied": ["roles.sql"]}
    assert named("grant usage on schema noetl") in bare_command("migrate", "--sql", "--roles").stdout
    assert named("grant usage on schema noetl") not in bare_command("migrate", "--sql").stdout
    assert bare_command("migrate", "--status", "--roles").exit_code == 2


async def test_migrate_status_without_rights_exits_with_77(command: Command, database: Database) -> None:
    """As any other command: it is no bug of the program."""
    async with login(database, "no_role") as no_role:
        answer = await asyncio.to_thread(command.run, "migrate", "--status", "--dsn", no_role.dsn)
    assert (answer.returncode, answer.stdout) == (77, "")
    assert answer.stderr.startswith("noetl-broker: the database refuses, because a right is missing: permission denied")


@pytest.mark.parametrize(
    "there", ["create table noetl.execution (a int)", "create view noetl.queue as select 1 as queue_id"]
)
def test_a_conflicting_object_exits_with_78(bare_command: Command, empty_database: Database, there: str) -> None:
    """With the migration and the server's message. The migration is rolled back."""
    with psycopg_connect(empty_database) as owner:
        owner.execute(f"create schema noetl; {there}")
    answer = bare_command("migrate")
    assert (answer.exit_code, answer.stdout) == (EXIT_SCHEMA, "")
    assert answer.stderr.startswith("noetl-broker: migration 0001_tables.sql cannot be applied: ")
    assert answer.stderr.endswith("rename it, or move it to another schema\n")
