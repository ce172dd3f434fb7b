"""`migrate`: applied once, shown, or printed."""

from __future__ import annotations

import asyncio
import json

from tests.cli.conftest import Command
from tests.postgres import Database
from tests.roles import login


def test_it_migrates_once(bare_command: Command) -> None:
    """The second time there is nothing to do."""
    first, second = bare_command("migrate"), bare_command("migrate")
    assert first.stdout.startswith("applied 0001_tables.sql\n")
    assert (second.exit_code, second.stdout) == (0, "the schema is up to date\n")


def test_status_tells_what_is_pending_and_changes_nothing(bare_command: Command) -> None:
    """An operator looks before acting."""
    for _ in range(2):
        answer = bare_command("migrate", "--status", "--json")
        assert {entry["pending"] for entry in json.loads(answer.stdout)} == {True}
    bare_command("migrate")
    answer = bare_command("migrate", "--status", "--json")
    assert {entry["pending"] for entry in json.loads(answer.stdout)} == {False}


def test_sql_is_printed_without_a_database(lone_command: Command) -> None:
    """For who may not, or will not, let a program change a schema."""
    answer = lone_command("migrate", "--sql", "--dsn", "postgresql://127.0.0.1:1/nowhere")
    assert answer.exit_code == 0
    assert answer.stdout.startswith("-- 0001_tables.sql\n")
    assert "create table if not exists noetl.event" in answer.stdout


def test_roles_are_made_beside_the_schema(bare_command: Command) -> None:
    """In one command, and again as often as one likes; `--sql` prints them too."""
    first, second = bare_command("migrate", "--roles"), bare_command("migrate", "--roles", "--json")
    assert first.stdout.endswith("applied roles.sql\n")
    assert json.loads(second.stdout) == {"applied": ["roles.sql"]}
    assert "grant usage on schema noetl" in bare_command("migrate", "--sql", "--roles").stdout
    assert "grant usage on schema noetl" not in bare_command("migrate", "--sql").stdout
    assert bare_command("migrate", "--status", "--roles").exit_code == 2


async def test_status_without_rights_is_77(command: Command, database: Database) -> None:
    """As any other command: it is no fault of the program."""
    async with login(database, "stranger_of") as stranger:
        answer = await asyncio.to_thread(command.run, "migrate", "--status", "--dsn", stranger.dsn)
    assert (answer.returncode, answer.stdout) == (77, "")
    assert answer.stderr.startswith("noetl-broker: the database refuses for want of rights: permission denied")
