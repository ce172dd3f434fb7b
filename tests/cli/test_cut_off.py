"""Commands whose connection is terminated under them: each says so in one sentence, and ends with 69."""

from __future__ import annotations

import re

import psycopg
import pytest

from noetl_broker.errors import EXIT_UNAVAILABLE, DatabaseFault
from noetl_broker.store.session import session
from tests.cli.conftest import PATIENCE_SECONDS, Command, decide, rows, write_playbook
from tests.cli.test_watch import until
from tests.postgres import Database

TERMINATE = """
    select count(pg_terminate_backend(pid))
    from pg_stat_activity
    where datname = current_database() and application_name = %s"""
WAITS = """
    select pid
    from pg_stat_activity
    where datname = current_database() and application_name = %s and wait_event_type = 'Lock'"""
FETCH = """\
workflow:
  - {step: start, next: fetch}
  - {step: fetch, type: python, code: "def main(): return 1", next: end}
  - {step: end}
"""


@pytest.fixture
def started(command: Command, database: Database) -> int:
    """Start an execution and let a broker read its start: a job waits; give its id."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    started = int(command("start", "examples/fetch").stdout)
    decide(database)
    return started


def cut(database: Database, name: str) -> None:
    """Terminate the connection of this name; there is one."""
    assert rows(database, TERMINATE, name) == [(1,)]


# A word of the driver's own, such as __aexit__, says nothing to an operator.
SENTENCE = re.compile(
    r"noetl-broker: the (connection to the database was lost|database does not answer as it should): (?!.*__).+\n"
)


@pytest.mark.parametrize(
    "name, arguments",
    [("status", ("--watch",)), ("status", ("--watch", "--json")), ("events", ("--follow",))],
)
def test_who_watches_says_that_the_connection_was_lost(
    command: Command, database: Database, started: int, name: str, arguments: tuple[str, ...]
) -> None:
    """In one sentence, after what was seen until then."""
    watching = command.start(name, started, *arguments)
    assert watching.stdout is not None
    until(watching.stdout, "fetch")
    cut(database, f"noetl-broker {name}")
    _, err = watching.communicate(timeout=PATIENCE_SECONDS)
    assert (watching.returncode, SENTENCE.fullmatch(err) is not None) == (EXIT_UNAVAILABLE, True), err


def test_who_waits_for_an_execution_says_that_the_connection_was_lost(command: Command, database: Database) -> None:
    """Its id was told before, so that it can be asked for."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    waiting = command.start("start", "examples/fetch", "--wait")
    assert waiting.stdout is not None
    started = int(waiting.stdout.readline())
    cut(database, "noetl-broker start")
    _, err = waiting.communicate(timeout=PATIENCE_SECONDS)
    assert (waiting.returncode, SENTENCE.fullmatch(err) is not None) == (EXIT_UNAVAILABLE, True), err
    assert rows(database, "select execution_id from noetl.execution") == [(started,)]


@pytest.mark.parametrize(
    "arguments", [("verify",), ("verify", "--deep"), ("replay", "--all"), ("explain",), ("doctor",), ("archive",)]
)
def test_a_command_that_is_cut_off_in_mid_statement_says_so(
    command: Command, database: Database, started: int, arguments: tuple[str, ...]
) -> None:
    """It stands before a table that somebody else has locked; no traceback, and 69."""
    more = {"explain": (started,), "archive": ("--older-than", "1d", "--dry-run")}.get(arguments[0], ())
    with psycopg.connect(database.dsn) as other:
        other.execute("lock table noetl.turn, noetl.event, noetl.execution, noetl.inbox in access exclusive mode")
        asking = command.start(*arguments, *more)
        while not rows(database, WAITS, f"noetl-broker {arguments[0]}"):
            assert asking.poll() is None
        cut(database, f"noetl-broker {arguments[0]}")
        out, err = asking.communicate(timeout=PATIENCE_SECONDS)
    assert (asking.returncode, SENTENCE.fullmatch(err) is not None) == (EXIT_UNAVAILABLE, True), out + err


async def test_a_statement_that_is_not_answered_in_time_is_the_databases_fault(database: Database) -> None:
    """The connection stands; nothing of the command's own went wrong."""
    with pytest.raises(DatabaseFault, match="TimeoutError"):
        async with session(database.dsn, name="story") as connection:
            await connection.fetchval("select pg_sleep(30)", timeout=0.01)
