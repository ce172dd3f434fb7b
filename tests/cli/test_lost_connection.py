"""Commands whose connection is terminated print one sentence, and exit with 69; those that wait connect again."""

from __future__ import annotations

import re

import pytest

from noetl_broker.errors import EXIT_UNAVAILABLE, DatabaseFault, OperatorFault, SchemaFault
from noetl_broker.store.connect.dsn import Database as AnyDatabase
from noetl_broker.store.connect.lasting_session import LastingSession
from noetl_broker.store.connect.schema_name import application_name
from noetl_broker.store.connect.session import session
from tests.cli.conftest import PATIENCE_SECONDS, Command, decide, rows, write_playbook
from tests.cli.test_status_watch import until
from tests.postgres import Database, psycopg_connect

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
    """Terminate the one connection of this name."""
    assert rows(database, TERMINATE, application_name(name, database.schema)) == [(1,)]


# The driver's internal names, such as __aexit__, do not help an operator.
SENTENCE = re.compile(
    r"noetl-broker: the (connection to the database was lost|database does not answer as it should): (?!.*__).+\n"
)


@pytest.mark.parametrize(
    "name, arguments",
    [("status", ("--watch",)), ("status", ("--watch", "--json")), ("events", ("--follow",))],
)
def test_watching_goes_on_after_a_lost_connection(
    command: Command, database: Database, started: int, name: str, arguments: tuple[str, ...]
) -> None:
    """It says so, and shows each event once, to the end."""
    watching = command.start(name, started, *arguments)
    assert watching.stdout is not None
    until(watching.stdout, "fetch")
    cut(database, f"noetl-broker {name}")
    assert watching.stderr is not None
    until(watching.stderr, "waiting for the database: the ")
    until(watching.stderr, "the database is back")
    command("cancel", started)
    decide(database)
    out, err = watching.communicate(timeout=PATIENCE_SECONDS)
    assert (watching.returncode, err) == (int(name == "status"), "")
    assert out.lower().count("cancelled") >= 1
    if name == "events":
        assert out.count("step_started") == 1


def test_waiting_for_an_execution_goes_on_after_a_lost_connection(command: Command, database: Database) -> None:
    """The execution is started once."""
    command("register", write_playbook(command.folder, FETCH, path="examples/fetch"))
    waiting = command.start("start", "examples/fetch", "--wait")
    assert waiting.stdout is not None
    assert waiting.stderr is not None
    started = int(waiting.stdout.readline())
    decide(database)
    until(waiting.stderr, "step_started")
    cut(database, "noetl-broker start")
    until(waiting.stderr, "the database is back")
    command("cancel", started)
    decide(database)
    _, err = waiting.communicate(timeout=PATIENCE_SECONDS)
    assert (waiting.returncode, "was cancelled" in err) == (1, True), err
    assert rows(database, "select execution_id from noetl.execution") == [(started,)]


async def test_a_wrong_address_is_tried_once() -> None:
    """Else a command with a typo would wait for ever."""
    told: list[str] = []
    nowhere = AnyDatabase(dsn="postgresql://nobody@127.0.0.1:1/nothing")
    async with LastingSession(nowhere, name="story", say=told.append) as source:
        with pytest.raises(DatabaseFault):
            await source.read(lambda connection: connection.fetchval("select 1"))
    assert told == []


async def test_a_fault_that_a_new_connection_does_not_cure_is_raised(database: Database) -> None:
    """A missing table, for example."""
    told: list[str] = []
    async with LastingSession(database, name="story", say=told.append) as source:
        assert await source.read(lambda connection: connection.fetchval("select 1")) == 1
        with pytest.raises(SchemaFault):
            await source.read(lambda connection: connection.fetchval("select 1 from noetl.nothing"))
        with pytest.raises(OperatorFault, match="division by zero"):
            await source.read(lambda connection: connection.fetchval("select 1 / 0"))
    assert told == []


@pytest.mark.parametrize(
    "arguments", [("verify",), ("verify", "--deep"), ("replay", "--all"), ("explain",), ("doctor",), ("archive",)]
)
def test_a_connection_lost_during_a_statement_is_reported(
    command: Command, database: Database, started: int, arguments: tuple[str, ...]
) -> None:
    """It waits for a locked table. There is no traceback, and the exit code is 69."""
    more = {"explain": (started,), "archive": ("--older-than", "1d", "--dry-run")}.get(arguments[0], ())
    with psycopg_connect(database) as other:
        other.execute("lock table noetl.turn, noetl.event, noetl.execution, noetl.inbox in access exclusive mode")
        asking = command.start(*arguments, *more)
        while not rows(database, WAITS, application_name(f"noetl-broker {arguments[0]}", database.schema)):
            assert asking.poll() is None
        cut(database, f"noetl-broker {arguments[0]}")
        out, err = asking.communicate(timeout=PATIENCE_SECONDS)
    assert (asking.returncode, SENTENCE.fullmatch(err) is not None) == (EXIT_UNAVAILABLE, True), out + err


async def test_a_statement_timeout_is_a_database_fault(database: Database) -> None:
    """The connection is open, and the command itself has no fault."""
    with pytest.raises(DatabaseFault, match="TimeoutError"):
        async with session(database, name="story") as connection:
            await connection.fetchval("select pg_sleep(30)", timeout=0.01)
