"""A start with a moment: queued by a timer, and admitted as any other when it comes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.brokers import complete_jobs, drain, execute, register, rows, value
from tests.consistency import inconsistencies
from tests.postgres import Database
from tests.sessions import refused, session

STORY = "workflow: [{step: start, next: a}, {step: a, type: python, code: 'def main(): ...'}]"
NOW_DUE = "update noetl.timer set due_at = clock_timestamp() where purpose = 'start'"
FIRE = "select noetl.fire_timers(100, 0)"
STATUS = "select status from noetl.execution where execution_id = $1"


async def begin(database: Database, **options: Any) -> int:
    """Start `story` with these options; returns its id when it has taken its first turn."""
    statement = "select noetl.start_execution('story', '{}', null, null, $1::text::jsonb)"
    execution_id: int = await value(database, statement, json.dumps(options))
    await drain(database)
    return execution_id


async def test_nothing_admits_a_start_before_its_moment(database: Database) -> None:
    """No sweep, no resume of its path, no resume of its pause. Then a paused path holds it as any other."""
    await register(database, STORY, metadata="deadline: 2h, concurrency: {limit: 1}")
    delayed = await begin(database, start_after="1h")
    await execute(database, "select noetl.pause_path('story')")
    await execute(database, "select noetl.resume_path('story')")
    await execute(database, "select noetl.pause_execution($1)", delayed)
    await execute(database, "select noetl.resume_execution($1)", delayed)
    await execute(database, "select noetl.reap(100, 5)")
    assert await value(database, "select noetl.admit_executions('story', 5)") == 0
    await drain(database)
    before = "select x.status, x.admitted_at, (select count(*) from noetl.slot_claim) from noetl.execution x"
    assert await rows(database, before) == [("QUEUED", None, 0)]
    assert await rows(database, "select purpose from noetl.timer") == [("start",)]  # no deadline

    await execute(database, "select noetl.pause_path('story')")
    await execute(database, NOW_DUE)
    await execute(database, FIRE)
    await drain(database)
    assert await value(database, STATUS, delayed) == "QUEUED"
    await execute(database, "select noetl.resume_path('story')")
    await execute(database, "select noetl.reap(100, 5)")
    await drain(database)
    assert await value(database, STATUS, delayed) == "RUNNING"
    assert await rows(database, "select purpose from noetl.timer") == [("deadline",)]
    await complete_jobs(database)
    await drain(database)
    assert await inconsistencies(database) == {}


async def test_a_moment_admits_it_and_a_cancel_comes_before(database: Database) -> None:
    """The moment of one admits it without anybody; the timer of a cancelled one is gone. A priority is of the jobs."""
    await register(database, STORY)
    cancelled = await begin(database, start_at="2099-03-01T09:00:00+01:00")
    due = "select to_char(due_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') from noetl.timer"
    assert await value(database, due) == "2099-03-01 08:00"
    await execute(database, "select noetl.cancel_execution($1)", cancelled)
    await drain(database)
    assert (await value(database, STATUS, cancelled), await value(database, due)) == ("CANCELLED", None)
    delayed = await begin(database, start_after=90, priority=8)
    await execute(database, NOW_DUE)
    await execute(database, FIRE)
    await drain(database)
    assert await value(database, STATUS, delayed) == "RUNNING"
    past = await begin(database, start_at="2020-01-01T00:00:00Z", start_after=None)
    jobs = await rows(database, "select execution_id, priority from noetl.queue order by execution_id")
    assert jobs == [(delayed, 8), (past, 5)]
    await complete_jobs(database)
    await drain(database)
    assert await inconsistencies(database) == {}


@pytest.mark.parametrize(
    "options, says",
    [
        ({"start_at": "tomorrow"}, "start_at tomorrow is no moment"),
        ({"start_at": "2026-03-01T09:00:00"}, "start_at 2026-03-01T09:00:00 is no moment"),
        ({"start_at": "2026-13-01T09:00:00Z"}, "is no moment"),
        ({"start_at": "9999-12-31T23:59:59-05:00"}, "is no moment"),
        ({"start_after": "420000w"}, "start_after 420000w is no duration"),
        ({"start_after": "soon"}, "start_after soon is no duration"),
        ({"start_after": -5}, "start_after -5 is no duration"),
        ({"start_after": "999999999w"}, "is no duration"),
        ({"start_at": "2026-03-01T09:00:00Z", "start_after": 5}, "not both"),
        ({"priority": "high"}, "the priority high is no integer"),
        ({"priority": "7"}, "the priority 7 is no integer"),
        ({"priority": 1.5}, "the priority 1.5 is no integer"),
        ({"priority": 2**31}, "is no integer"),
        ({"prio": 1}, "a start has no option prio"),
    ],
)
async def test_a_wrong_option_starts_nothing(database: Database, options: dict[str, Any], says: str) -> None:
    """The error names the value."""
    await register(database, STORY)
    async with session(database) as own, refused("NB400", says):
        await own.execute("select noetl.start_execution('story', options => $1::text::jsonb)", json.dumps(options))
    assert await value(database, "select count(*) from noetl.execution") == 0
