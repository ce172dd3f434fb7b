"""Commands in this process use a session again, which is then as a new one."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command, rows
from tests.kept_sessions import IDLE
from tests.postgres import Database

SESSIONS = """
    select pid, application_name, query
    from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and application_name <> ''"""


def test_the_next_command_gets_the_session(command: Command, database: Database) -> None:
    """It has no name of a command in between."""
    assert command("executions").exit_code == 0
    before = rows(database, SESSIONS)
    assert command("executions").exit_code == 0
    assert [(pid, name) for pid, name, _ in rows(database, SESSIONS)] == [(pid, IDLE) for pid, _, _ in before]
    assert len(before) == 1


def test_a_dead_session_is_replaced(command: Command, database: Database) -> None:
    """The command does not see that its server process was killed."""
    assert command("executions").exit_code == 0
    [(before, *_)] = rows(database, SESSIONS)
    assert rows(database, "select pg_terminate_backend(%s, 60000)", before) == [(True,)]
    assert command("executions").exit_code == 0
    [(after, *_)] = rows(database, SESSIONS)
    assert after != before


@pytest.mark.own_database
def test_a_test_with_its_own_database_leaves_no_session(command: Command, database: Database) -> None:
    """Its commands open and close their own."""
    assert command("executions").exit_code == 0
    assert rows(database, SESSIONS) == []
