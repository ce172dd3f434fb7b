"""A schedule's overlap: what becomes of a moment while an earlier execution lives."""

from __future__ import annotations

import pytest

from tests.brokers import complete_jobs, drain, execute, register, rows, value
from tests.consistency import inconsistencies
from tests.postgres import Database

JOB = """
workflow:
  - {step: start, next: a}
  - {step: a, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
FIRE = """
    select execution_id
    from noetl.start_scheduled('nightly', '2026-11-20T02:00:00Z'::timestamptz + $1 * interval '1 day', 'a night', $2)"""


async def put(database: Database, overlap: str, *, path: str = "story", name: str = "nightly") -> None:
    """Put a schedule."""
    statement = "select noetl.put_schedule($1, $2, '@daily', overlap => $3)"
    await execute(database, statement, name, path, overlap)


async def fire(database: Database, night: int, *, alone: bool = True) -> int:
    """Start the execution of a night, and decide; `alone` is false for a backfill."""
    started = int(await value(database, FIRE, night, alone))
    await drain(database)
    return started


async def statuses(database: Database) -> list[str]:
    """Return the statuses of all executions, in the order of their starts."""
    return [status for (status,) in await rows(database, "select status from noetl.execution order by execution_id")]


async def finish_jobs(database: Database) -> list[str]:
    """Complete the jobs that are ready, decide, and return the statuses."""
    await complete_jobs(database)
    await drain(database)
    return await statuses(database)


@pytest.mark.parametrize(
    "overlap, during, after",
    [
        ("skip", ["RUNNING", "CANCELLED"], ["COMPLETED", "CANCELLED"]),
        ("queue", ["RUNNING", "QUEUED"], ["COMPLETED", "RUNNING"]),
        ("cancel", ["CANCELLED", "RUNNING"], ["CANCELLED", "COMPLETED"]),
        ("allow", ["RUNNING", "RUNNING"], ["COMPLETED", "COMPLETED"]),
    ],
)
async def test_each_word_says_what_becomes_of_the_next_moment(
    database: Database, overlap: str, during: list[str], after: list[str]
) -> None:
    """Other executions of the playbook do not count."""
    await register(database, JOB)
    await put(database, overlap)
    await fire(database, 1)
    await fire(database, 2)
    assert await statuses(database) == during
    assert await finish_jobs(database) == after
    await finish_jobs(database)
    assert await rows(database, "select * from noetl.slot_claim") == []
    assert await inconsistencies(database) == {}


async def test_a_backfill_does_not_ask_for_overlap(database: Database) -> None:
    """It runs beside the others."""
    await register(database, JOB)
    await put(database, "skip")
    await fire(database, 5)
    await fire(database, 1, alone=False)
    assert await statuses(database) == ["RUNNING", "RUNNING"]


async def test_a_retry_of_a_scheduled_execution_waits_for_the_schedule(database: Database) -> None:
    """The night that runs is not disturbed."""
    await register(database, JOB)
    await put(database, "skip")
    first = await fire(database, 1)
    await execute(database, "select noetl.cancel_execution($1)", first)
    await drain(database)
    await fire(database, 2)
    plan = {"execution_id": first, "turn": 1, "results": [], "visits": {},
            "state": {"total": 0, "hold": {"kept": [{"arc": None, "step": "start", "result": None}]}}}  # fmt: skip
    await execute(database, "select noetl.fork_execution($1, $2)", first, plan)
    await drain(database)
    assert await statuses(database) == ["CANCELLED", "RUNNING", "QUEUED"]
    assert await finish_jobs(database) == ["CANCELLED", "COMPLETED", "RUNNING"]


async def test_an_execution_with_two_slots_holds_none_while_it_waits(database: Database) -> None:
    """It is admitted when both are free; one behind it that wants a single slot goes first meanwhile."""
    await register(database, JOB, metadata="concurrency: {}")
    await put(database, "queue")
    await execute(database, "select noetl.start_execution('story')")  # holds the playbook's slot
    await drain(database)
    await fire(database, 1)  # waits for the playbook's slot
    await fire(database, 2)  # waits for both
    await execute(database, "select noetl.start_execution('story')")
    await drain(database)
    held = "select count(*) from noetl.slot_claim where held_at is not null"
    assert (await statuses(database), await value(database, held)) == (["RUNNING", "QUEUED", "QUEUED", "QUEUED"], 1)
    assert await finish_jobs(database) == ["COMPLETED", "RUNNING", "QUEUED", "QUEUED"]
    assert await value(database, held) == 2
    assert await finish_jobs(database) == ["COMPLETED", "COMPLETED", "RUNNING", "QUEUED"]
    assert await finish_jobs(database) == ["COMPLETED", "COMPLETED", "COMPLETED", "RUNNING"]
    await finish_jobs(database)
    assert await rows(database, "select * from noetl.place") == []
    assert await inconsistencies(database) == {}


async def test_the_schedules_of_one_playbook_have_slots_of_their_own(database: Database) -> None:
    """And other starts of the playbook ask for none."""
    await register(database, JOB)
    await put(database, "skip")
    await put(database, "skip", name="hourly")
    await fire(database, 1)
    hourly = "select execution_id from noetl.start_scheduled('hourly', '2026-11-21T03:00:00Z', 'x', true)"
    await execute(database, hourly)
    await execute(database, "select noetl.start_execution('story')")
    await drain(database)
    assert await statuses(database) == ["RUNNING"] * 3
