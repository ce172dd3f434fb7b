"""The command `token`, and the console that demands one."""

from __future__ import annotations

from tests.cli.conftest import Command, rows
from tests.postgres import Database


def test_a_token_is_shown_once_and_stored_as_a_digest(command: Command, database: Database) -> None:
    """The list has its role and its state. A second one of its name is refused with what to do."""
    made = command("token", "create", "ci", "--role", "operator", "--expires", "never").stdout.strip()
    assert (made[:4], made in rows(database, "select t::text from noetl.api_token t")[0][0]) == ("nbt_", False)
    command.refuses([("token create ci --role viewer", 1, "take another name")])
    command("token", "revoke", "ci")
    listed = command.json("token", "list")
    assert [(row["name"], row["role"], row["status"]) for row in listed] == [("ci", "operator", "revoked")]


def test_the_console_serves_other_machines_only_with_a_token(command: Command) -> None:
    """It says which command makes one."""
    command.refuses([("console --host 0.0.0.0 --port 0", 2, "noetl-broker token create")])
