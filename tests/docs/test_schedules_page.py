"""docs/schedules.md: its playbook, keys, commands and statements are those of the program."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from noetl_broker.playbook import PlaybookRules, check
from noetl_broker.playbook.schedules import SCHEDULE_KEYS
from tests.cli.conftest import Command
from tests.docs.pages import code_blocks, read_page, table
from tests.postgres import Database, psycopg_connect

PAGE = read_page("schedules")
[PLAYBOOK] = code_blocks(PAGE, "yaml")


@pytest.fixture
def command(database: Database, tmp_path: Path) -> Command:
    """Commands on a database that has the page's playbook."""
    (tmp_path / "nightly.yaml").write_text(PLAYBOOK, encoding="utf-8")
    made = Command(tmp_path, database.dsn)
    assert made("register", tmp_path / "nightly.yaml").exit_code == 0
    return made


def test_the_playbook_has_no_finding() -> None:
    """People copy it."""
    assert check(PLAYBOOK, file="page", rules=PlaybookRules()) == ()


def test_each_key_is_listed() -> None:
    """Except the description, which has no meaning."""
    assert {key.strip("`") for key in table(PAGE, "| key |")} == {*SCHEDULE_KEYS} - {"description"}


def test_the_commands_run_in_their_order(command: Command) -> None:
    """After `register` has put the schedule of the page."""
    assert "examples/nightly#nightly" in command("schedule", "list").stdout
    calls = [line for block in code_blocks(PAGE, "sh") for line in block.splitlines() if " schedule " in line]
    assert len(calls) == PAGE.count("\nnoetl-broker schedule ")
    deleted = [call for call in calls if " delete " in call]
    for call in [*(call for call in calls if call not in deleted), *deleted]:
        answer = command(*shlex.split(call.partition("  #")[0])[1:])
        assert (call, answer.exit_code, answer.stderr) == (call, 0, "")


def test_the_statements_run_in_their_order(command: Command, database: Database) -> None:
    """As the owner."""
    del command
    [block] = code_blocks(PAGE, "sql")
    with psycopg_connect(database) as connection:
        for statement in re.split(r";\n?", block.strip()):
            if statement:
                connection.execute(statement)
