"""The command `token`, and the console that demands one."""

from __future__ import annotations

import json

from tests.cli.conftest import Command, rows
from tests.postgres import Database


def test_a_token_is_shown_once_and_stored_as_a_digest(command: Command, database: Database) -> None:
    """The list has its role and its state."""
    made = command("token", "create", "ci", "--role", "operator", "--expires", "never").stdout.strip()
    command("token", "revoke", "ci")
    listed = json.loads(command("token", "list", "--json").stdout)
    stored = rows(database, "select t::text from noetl.api_token t")[0][0]
    assert (made.startswith("nbt_"), made in stored, [(row["name"], row["status"]) for row in listed]) == (
        True,
        False,
        [("ci", "revoked")],
    )


def test_a_second_token_of_a_name_is_refused(command: Command) -> None:
    """The message says what to do."""
    calls = [command("token", "create", "ci", "--role", "viewer") for _ in range(2)]
    assert [(call.exit_code, "take another name" in call.stderr) for call in calls] == [(0, False), (1, True)]


def test_the_console_serves_other_machines_only_with_a_token(command: Command) -> None:
    """It says which command makes one."""
    refused = command("console", "--host", "0.0.0.0", "--port", 0)  # noqa: S104 - it is refused
    assert (refused.exit_code, "noetl-broker token create" in refused.stderr) == (2, True)
