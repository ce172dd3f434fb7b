"""`migrate`: applied once, shown, or printed."""

from __future__ import annotations

import json

from tests.cli.conftest import Command


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
