"""`archive`: due periods, what keeps a period, archived periods, and how they are restored."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from noetl_broker.store.connect.session import session
from tests.brokers import PATIENCE_SECONDS
from tests.cli.conftest import Command, execute, rows
from tests.periods import LATER, LONG_AGO, ended_in
from tests.postgres import Database, named, psycopg_connect

PERIODS = "select name, archived_at is not null from noetl.period order by first_id"


def test_a_dry_run_shows_due_periods_and_changes_nothing(command: Command, database: Database) -> None:
    """With sizes, and the executions that keep the other periods."""
    asyncio.run(ended_in(database, LONG_AGO))
    [held] = asyncio.run(ended_in(database, LATER))
    execute(database, f"update noetl.execution set status = 'RUNNING' where execution_id = {held}")
    execute(database, "analyze")
    answer = command("archive", "--older-than", "0s", "--dry-run")
    assert answer.exit_code == 0
    lines = answer.stdout.splitlines()
    assert lines[0].split() == ["period", "from", "until", "partitions", "executions", "rows", "bytes", "outcome"]
    first = lines[1].split()
    assert first[:5] == [LONG_AGO, "2025-01-01", "2025-02-01", "12", "1"]
    assert first[-2:] == ["would", "leave"]
    assert int(first[5]) == 15  # 6 events, 2 turns, 1 job, 3 steps, 2 arcs, 1 workload
    assert int(first[6]) > 8 * 8192
    assert lines[2].endswith("kept by 1")
    assert lines[-1] == f"{LATER} execution {held}: it runs"
    assert rows(database, PERIODS)[:2] == [(LONG_AGO, False), (LATER, False)]


def test_a_due_period_is_archived(command: Command, database: Database) -> None:
    """A second call has nothing to do. `status` of an archived execution is no error: its row is there."""
    [gone] = asyncio.run(ended_in(database, LONG_AGO))
    outcomes = [
        [period["outcome"] for period in command.json("archive", "--older-than", "0s")["periods"]] for _ in range(2)
    ]
    assert outcomes == [[first, "not old enough", "not old enough"] for first in ("left now", "archived")]
    assert rows(database, PERIODS)[0] == (LONG_AGO, True)
    answer = command("status", gone)
    assert (answer.exit_code, "archived: its steps, events and jobs are in the schema" in answer.stdout) == (0, True)


def test_two_archive_calls_wait_for_each_other(command: Command, database: Database) -> None:
    """Both start before the first can archive; the second finds nothing left to do."""
    asyncio.run(ended_in(database, LONG_AGO))
    with psycopg_connect(database) as reader:
        reader.execute("select from noetl.event limit 1")
        calls = [command.start("archive", "--older-than", "0s", "--json") for _ in range(2)]
        _until_at_work(database, 2)
    answers = [call.communicate(timeout=PATIENCE_SECONDS) for call in calls]
    assert [(call.returncode, stderr) for call, (_, stderr) in zip(calls, answers, strict=True)] == [(0, "")] * 2
    assert sorted(json.loads(stdout)["periods"][0]["outcome"] for stdout, _ in answers) == ["archived", "left now"]


def _until_at_work(database: Database, count: int) -> None:
    """Poll until so many calls wait for a table, or for each other; there is no signal for it."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    waits = """
        select
        from pg_stat_activity
        where datname = current_database() and application_name ~ 'broker archive' and query ~ 'detach|advisory'"""
    while len(rows(database, waits)) < count:
        assert time.monotonic() < ends_at


def test_restore_brings_a_period_back(command: Command, database: Database) -> None:
    """The command that `replay` suggests restores it."""
    [gone] = asyncio.run(ended_in(database, LONG_AGO))
    command("archive", "--older-than", "0s")
    replayed = command("replay", gone)
    assert replayed.exit_code == 1
    assert f"noetl-broker archive --restore {LONG_AGO} brings it back" in replayed.stderr
    answer = command("archive", "--restore", LONG_AGO)
    assert (answer.exit_code, answer.stdout) == (0, f"period {LONG_AGO} is back, 12 tables\n")
    assert command("replay", gone).exit_code == 0


def test_archive_has_no_command_timeout(command: Command, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the server's timeout, the driver's own must not end a long read."""
    asyncio.run(ended_in(database, LONG_AGO))
    monkeypatch.setitem(session.__wrapped__.__kwdefaults__, "command_timeout", 1e-9)  # type: ignore[attr-defined]
    assert command("status", 1).exit_code == 69
    assert command("archive", "--older-than", "0s").exit_code == 0
    assert command("archive", "--restore", LONG_AGO).exit_code == 0


def test_commands_name_the_archive_of_an_archived_execution(command: Command, database: Database) -> None:
    """In one sentence, with an exit code that is not 0."""
    [gone] = asyncio.run(ended_in(database, LONG_AGO))
    execute(database, "update noetl.execution set status = 'FAILED'")  # only a failed execution can be retried
    command("archive", "--older-than", "0s")
    calls = "events, explain, graph, replay, verify, retry, reevaluate, replay --until turn:1, replay --story"
    for call in f"{calls}, fork --from work".split(", "):
        answer = command(*call.split(), gone)
        assert answer.exit_code != 0
        assert f"execution {gone} is archived" in answer.output
        assert named("noetl_archive") in answer.output
