"""Commands on the database of a NoETL server: its own objects cause no findings, also after going back."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from noetl_broker.errors import EXIT_NO_PERMISSION
from noetl_broker.store.connect.migrations import migrate
from tests.brokers import drain
from tests.cli.conftest import Command, execute, rows
from tests.postgres import Database
from tests.roles import login
from tests.store import noetl_server

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "beside-noetl.md").read_text(encoding="utf-8")
GOING_BACK = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)[-1]
LATE = """
insert into noetl.event (execution_id, catalog_id, event_id, event_type, node_id, node_name)
values (5, 77, 9, 'action_completed', '5:a', 'a')"""


@pytest.fixture
async def moved(empty_database: Database) -> Database:
    """Give a migrated database of such a server with an execution of its own broker."""
    execute(empty_database, noetl_server.TABLES)
    execute(empty_database, noetl_server.HISTORY)
    await migrate(empty_database)
    return empty_database


@pytest.fixture
def moved_command(moved: Database, bare_command: Command) -> Command:
    """Give the command line on it."""
    del moved
    return bare_command


def findings(command: Command) -> dict[str, str]:
    """Give the findings of `doctor`, by check."""
    return {one["check"]: one["state"] for one in command.json("doctor")["findings"]}


async def test_replay_skips_executions_of_the_other_broker(moved: Database, moved_command: Command) -> None:
    """An event of such an execution has a turn that decided nothing."""
    execute(moved, LATE)
    await drain(moved)
    assert rows(moved, "select outcome from noetl.turn") == [("unknown_execution",)]
    answer = await asyncio.to_thread(moved_command, "replay", "--all")
    assert (answer.exit_code, "0 executions" in answer.stdout) == (0, True), answer.stdout
    replayed = await asyncio.to_thread(moved_command, "replay", "5")
    assert "noetl.execution has no row of it" in replayed.stdout + replayed.stderr


def test_doctor_accepts_triggers_removed_by_give_back(moved: Database, moved_command: Command) -> None:
    """If all are removed, a broker need not run either. If only some are, there is a finding."""
    execute(moved, "drop trigger noetl_receive_events on noetl.event")
    assert findings(moved_command)["triggers"] == "problem"
    execute(moved, GOING_BACK.replace("drop trigger", "drop trigger if exists"))
    found = findings(moved_command)
    assert (found["triggers"], found["brokers"]) == ("ok", "ok")


async def test_migrate_without_createrole_applies_the_schema(bare_command: Command, empty_database: Database) -> None:
    """The owner of the schema often cannot create roles: the output lists what is done and what is left.

    Roles belong to the whole server, so another test may have made them: the login cannot grant one table.
    """
    async with login(empty_database, "owner") as owner:
        name = owner.dsn.partition("//")[2].partition(":")[0]
        execute(empty_database, f"grant create on database {empty_database.name} to {name}")
        await asyncio.to_thread(bare_command.run, "migrate", "--dsn", owner.dsn)
        execute(empty_database, "alter table noetl.job_to_cancel owner to current_user")
        answer = await asyncio.to_thread(bare_command.run, "migrate", "--roles", "--dsn", owner.dsn)
        again = await asyncio.to_thread(bare_command.run, "migrate", "--roles", "--json", "--dsn", owner.dsn)
        execute(empty_database, "drop schema noetl cascade")
    assert (answer.returncode, again.returncode) == (EXIT_NO_PERMISSION, EXIT_NO_PERMISSION)
    assert answer.stdout == "the schema is up to date\n"
    for stderr in (answer.stderr, again.stderr):
        assert stderr.startswith("noetl-broker: the schema is applied, the roles are not: ")
        assert "noetl-broker migrate --roles" in stderr
    assert again.stdout == ""
