"""`start_timeout`: a job that no worker leases in time fails."""

from __future__ import annotations

from tests.brokers import (
    broken_invariants,
    complete_jobs,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    until_ended,
    value,
)
from tests.consistency import inconsistencies
from tests.postgres import Database, asyncpg_connect

STORY = """
workload: {limit: 60}
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, start_timeout: "{{ limit }}", MORE next: end}
- {step: end, result: "{{ a.error.type | default(a) }}"}
"""
WHOLE = """
    due_at between created_at + interval '59 s' and created_at + interval '61 s'
      and created_at > clock_timestamp() - interval '50 s'"""  # the minute begins now, and not 55 s ago
DUE = "update noetl.timer set due_at = clock_timestamp() - interval '1 ms'"


async def started(database: Database, more: str = "", limit: str = "1m") -> None:
    """Start an execution with one job."""
    await register(database, STORY.replace("MORE", more))
    await start(database, payload={"limit": limit})
    await drain(database)


async def test_a_job_that_nobody_leases_fails_in_time(database: Database) -> None:
    """The error has a type of its own."""
    await started(database, limit="0.3s")
    async with running(database):
        await until_ended(database)
    [(status, error)] = await rows(database, "select status, error from noetl.execution")
    assert (status, error["type"], error["step"]) == ("FAILED", "start_timeout", "a")
    assert error["message"].startswith("start_timeout: no worker leased the job by 20")
    assert await inconsistencies(database) == {}


async def test_on_error_goes_on_and_a_retry_waits_without_limit(database: Database) -> None:
    """The second attempt may wait."""
    await started(database, "on_error: continue, retry: {max_attempts: 2, initial_delay: 0},")
    await execute(database, DUE)
    await drain(database)
    assert await rows(database, "select status, attempts from noetl.queue") == [("retry", 0)]
    assert await rows(database, "select * from noetl.timer") == []
    await complete_jobs(database, 7)
    await drain(database)
    assert await value(database, "select result from noetl.execution") == 7
    assert await broken_invariants(database) == {}


async def test_a_job_that_was_leased_in_time_has_no_start_timeout(database: Database) -> None:
    """Whether the worker is done or not."""
    await started(database)
    await start(database)
    await drain(database)
    await complete_jobs(database, 7, limit=1)
    await execute(database, "select noetl.lease_jobs('w')")
    await execute(database, DUE)
    await drain(database)
    assert await value(database, "select count(*) from noetl.event where event_type = 'action_failed'") == 0
    assert await rows(database, "select * from noetl.timer") == []
    assert await broken_invariants(database, ignore=["every execution ended"]) == {}


async def test_while_a_job_is_held_its_time_does_not_count(database: Database) -> None:
    """It begins anew."""
    await started(database)
    await execute(database, "update noetl.queue set status = 'held', held_for = '{pause}'")
    await execute(
        database, "update noetl.timer set due_at = due_at - interval '1 h', created_at = created_at - interval '1 h'"
    )
    await drain(database)
    assert await rows(database, f"select timer_id > 1, {WHOLE} from noetl.timer") == [(True, True)]


async def test_after_a_pause_the_time_begins_anew(database: Database) -> None:
    """Most of it had passed when the execution was paused."""
    await started(database)
    await execute(
        database, "update noetl.timer set due_at = due_at - interval '55 s', created_at = created_at - interval '55 s'"
    )
    await execute(database, "select noetl.pause_execution(execution_id) from noetl.execution")
    await drain(database)
    assert await value(database, "select status from noetl.queue") == "held"
    await execute(database, "select noetl.resume_execution(execution_id) from noetl.execution")
    await drain(database)
    assert await value(database, f"select {WHOLE} from noetl.timer") is True
    assert await value(database, "select status from noetl.queue") == "queued"


async def test_a_job_whose_lease_is_rolled_back_has_its_start_timeout(database: Database) -> None:
    """Its row was locked when the timer fired, so the timer fires again."""
    await started(database)
    await execute(database, DUE)
    worker = await asyncpg_connect(database)
    try:
        await worker.execute("begin")
        await worker.execute("select noetl.lease_jobs('w')")
        await drain(database)
        assert await value(database, "select count(*) from noetl.event where event_type = 'action_failed'") == 0
        await worker.execute("rollback")
    finally:
        await worker.close()
    async with running(database):
        await until_ended(database)
    assert await value(database, "select error ->> 'type' from noetl.execution") == "start_timeout"
