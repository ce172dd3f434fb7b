"""Commands whose connection is terminated print one sentence, and exit with 69; those that wait connect again."""

from __future__ import annotations

import re

import pytest

from noetl_broker.errors import EXIT_UNAVAILABLE
from noetl_broker.store.connect.schema_name import application_name
from tests.cli.conftest import FETCH, PATIENCE_SECONDS, Command, cut, decide, rows, write_playbook
from tests.cli.test_status_watch import until
from tests.postgres import Database, psycopg_connect

WAITS = """
    select pid
    from pg_stat_activity
    where datname = current_database() and application_name = %s and wait_event_type = 'Lock'"""


# The driver's internal names, such as __aexit__, do not help an operator.
SENTENCE = re.compile(
    r"noetl-broker: the (connection to the database was lost|database does not answer as it should): (?!.*__).+\n"
)


@pytest.mark.parametrize("call", ["status --watch", "status --watch --json", "events --follow"])
def test_watching_goes_on_after_a_lost_connection(
    command: Command, database: Database, started: int, call: str
) -> None:
    """It says so, and shows each event once, to the end."""
    name, *options = call.split()
    watching = command.start(name, started, *options)
    assert (watching.stdout, watching.stderr) != (None, None)
    until(watching.stdout or (), "fetch")
    cut(database, f"noetl-broker {name}")
    until(watching.stderr or (), "waiting for the database: the ")
    until(watching.stderr or (), "the database is back")
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


@pytest.mark.parametrize(
    "call",
    [
        *("verify", "verify --deep", "replay --all", "explain ID", "doctor", "archive --older-than 1d --dry-run"),
        *("migrate", "migrate --status", "migrate --roles"),
    ],
)
def test_a_connection_lost_during_a_statement_is_reported(
    command: Command, database: Database, started: int, call: str
) -> None:
    """It waits for a locked table. There is no traceback, and the exit code is 69."""
    name, *more = call.replace("ID", str(started)).split()
    tables = "noetl.schema_version" if name == "migrate" else "noetl.turn, noetl.event, noetl.execution, noetl.inbox"
    with psycopg_connect(database) as other:
        other.execute(f"lock table {tables} in access exclusive mode")
        asking = command.start(name, *more)
        while not rows(database, WAITS, application_name(f"noetl-broker {name}", database.schema)):
            assert asking.poll() is None
        cut(database, f"noetl-broker {name}")
        out, err = asking.communicate(timeout=PATIENCE_SECONDS)
    assert (asking.returncode, SENTENCE.fullmatch(err) is not None) == (EXIT_UNAVAILABLE, True), out + err
