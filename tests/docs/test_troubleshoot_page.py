"""docs/troubleshoot.md: its statements run, and `explain` and `doctor` print what it shows."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from noetl_broker.store.connection import connect
from noetl_broker.store.doctor_checks import Limits
from tests.brokers import complete_jobs, drain, register, rows, running, start
from tests.chaos.silent_proxy import SilentProxy
from tests.cli.conftest import Command
from tests.docs.pages import code_blocks, read_page
from tests.docs.shown_output import GET, ID_ON_THE_PAGE, LOG, Play, shown_calls, without_changing_parts
from tests.postgres import Database, psycopg_connect
from tests.roles import logins

PAGE = read_page("troubleshoot")
SLOW_TRIP_MS = Limits().slow_trip_seconds * 1000
STATEMENTS = code_blocks(PAGE, "sql")
DIAMOND = """
    workflow:
      - {step: start, next: [left, right]}
      - {step: left, type: python, code: "def main(): ...", next: [{when: "{{ left > 0 }}", step: both}]}
      - {step: right, type: python, code: "def main(): ...", next: both}
      - {step: both, type: python, code: "def main(): ...", next: end}
      - {step: end}
    """


@pytest.fixture
def play(database: Database, tmp_path: Path) -> Play:
    """The execution of the page, at its start."""
    return Play(Command(tmp_path, database.dsn), database, PAGE)


def test_explain_prints_what_the_page_shows(play: Play) -> None:
    """An execution that waits, a step that did not run, a join that waits."""
    play.answer("get", GET)
    play.answer("log", LOG)
    play.sql("select noetl.lease_jobs('w7', 1, 3600, array['http'])")
    play.assert_shown(f"explain {ID_ON_THE_PAGE}")
    play.assert_shown(f"explain {ID_ON_THE_PAGE} alert")
    play.assert_shown(f"explain {ID_ON_THE_PAGE} report")


def _doctor_lines(text: str) -> list[str]:
    """Return the lines of `doctor` without what differs between servers and with the load of the machine."""
    if any(float(trip) > SLOW_TRIP_MS for trip in re.findall(r"a round trip takes ([\d.]+) ms", text)):
        text = re.sub(r"notice( +connection.*\n).*\n.*\n", r"ok\1", text)
    for own in (
        r"\d+\.\d% full",
        r"PostgreSQL \S+, database \S+ as \S+,",
        r"works as \d+",
        r"within \S+ s",
        r"version \d+",
        r"the role broker_1|the role noetl_broker_of_\S+",
    ):
        text = re.sub(own, "OWN", without_changing_parts(text))
    text = re.sub(r", \d notices?$", "", text, flags=re.MULTILINE)
    lines = re.sub(r"notice +durability.*\n.*\n.*\n", "", text).splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


async def test_doctor_prints_what_the_page_shows(database: Database, tmp_path: Path) -> None:
    """For a broker's login behind a pooler that drops notifications."""
    [shown] = [text for call, text in shown_calls(PAGE) if call == "doctor"]
    async with (
        logins(database) as those,
        running(those.broker),
        SilentProxy(those.broker, deaf=b"noetl-broker doctor", greets_as=1006156413) as pooler,
    ):
        answer = await asyncio.to_thread(Command(tmp_path, pooler.database.dsn).run, "doctor")
    assert _doctor_lines(answer.stdout) == _doctor_lines(shown)


def test_each_shown_output_has_a_test() -> None:
    """A call that is added to the page needs one."""
    assert [call.split()[0] for call, _ in shown_calls(PAGE)] == ["doctor", "explain", "explain", "explain"]


def test_each_table_exists(database: Database) -> None:
    """In a migrated database."""
    with psycopg_connect(database) as connection:
        found = {row[0] for row in connection.execute("select table_name from information_schema.tables").fetchall()}
    names = re.findall(r"^\| `noetl\.(\w+)`(?:, `noetl\.(\w+)`)? \|", PAGE, re.MULTILINE)
    assert names
    assert {name for pair in names for name in pair if name} <= found


async def test_the_statements_show_why_an_execution_waits(database: Database) -> None:
    """One branch waits at the join; the other's job waits for a worker."""
    await register(database, DIAMOND)
    [waiting_id] = await start(database)
    await drain(database)
    await complete_jobs(database, 1, limit=1)
    found = await _results(database, waiting_id)
    assert [row[1] for row in found["noetl.inbox"]] == ["action_completed"]
    await drain(database)
    found = await _results(database, waiting_id)
    assert [row[0] for row in found["noetl.queue"]] == ["right"]
    [(turn, live, waiting)] = found["noetl.execution_state"]
    assert (turn, [token["step"] for token in live], [*waiting]) == (2, ["right"], ["both"])
    assert [row[1] for row in found["noetl.turn"]] == ["decided", "decided"]
    assert [row[1:3] for row in found["noetl.event"]] == [("{{ left > 0 }}", "true")]
    assert found["noetl.dead_letter"] == found["pg_locks"] == []


async def test_the_statement_about_sleeping_brokers_finds_one(database: Database) -> None:
    """A sleeping broker holds the gate."""
    statement = next(statement for statement in STATEMENTS if "pg_locks" in statement)
    async with running(database):
        while not (found := await rows(database, statement)):
            pass
    assert found[0][1] == "noetl-broker bell"


async def _results(database: Database, execution_id: int) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each statement by the first table that it reads."""
    results: dict[str, list[tuple[Any, ...]]] = {}
    connection = await connect(database, name="psql")
    try:
        for statement in STATEMENTS:
            table = re.findall(r"from ([\w.]+)", statement)[0]
            found = await connection.fetch(statement.replace(":id", str(execution_id)))
            results[table] = [tuple(row) for row in found]
    finally:
        await connection.close()
    assert len(results) == len(STATEMENTS)
    return results
