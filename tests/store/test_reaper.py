"""What time alone brings about: leases that run out, actions and executions that take too long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.brokers import broken_invariants, complete_jobs, drain, register, rows, start, value
from tests.postgres import Database
from tests.sessions import Session, blocked, listen, put_job, session

ONE_STEP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""
TIMEOUT = ONE_STEP.replace("code: x", "code: x, timeout: 30, retry: {max_attempts: 2, initial_delay: 0}")


async def lose(own: Session[Any], worker: str = "w") -> int:
    """Lease a job, let the lease run out, reap; gives the attempt."""
    attempt = int(await own.fetchval("select attempts from noetl.lease_jobs($1)", worker))
    await own.execute(
        "update noetl.queue set lease_until = clock_timestamp() - interval '1 second' where status = 'leased'"
    )
    await reap(own)
    return attempt


async def reap(own: Session[Any], *, most: int = 100, lost_leases: int = 5) -> dict[str, int]:
    """What one look of the reaper did."""
    row = await own.fetchrow("select * from noetl.reap($1, $2)", most, lost_leases)
    return {name: number for name, number in row.items() if number} if row else {}


async def age(own: Session[Any], seconds: float) -> None:
    """Let the running attempt have begun earlier."""
    await own.execute("update noetl.queue set first_leased_at = first_leased_at - make_interval(secs => $1)", seconds)


async def test_nothing_that_is_in_time_is_touched(database: Database) -> None:
    """A lease that stands, a queued job, a finished one with an old lease, an execution before its deadline."""
    async with session(database) as own:
        for node in ("held", "done", "queued"):
            await put_job(own, node, timeout_seconds=60.0)
        await own.execute("select noetl.lease_jobs('w', 2)")
        await own.execute(
            "update noetl.queue set status = 'done', lease_until = now() - interval '1 day' where node_name = 'done'"
        )
        before = await own.fetch("select * from noetl.queue order by queue_id")
        assert await reap(own) == {}
        assert await own.fetch("select * from noetl.queue order by queue_id") == before


async def test_a_lost_lease_goes_back_to_the_queue(database: Database) -> None:
    """It is no attempt of the step's: no event; the next lease has the next number."""
    async with session(database) as own:
        await put_job(own)
        await own.execute("select noetl.lease_jobs('w')")
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 second'")
        assert await reap(own) == {"requeued": 1}
        assert await own.fetchrow("select status, lost_leases, lease_until from noetl.queue") == ("queued", 1, None)
        assert await own.fetchval("select attempts from noetl.lease_jobs('x')") == 2
        kinds = await own.fetch("select event_type, meta -> 'attempt' from noetl.event order by created_at")
    assert [tuple(row) for row in kinds] == [("action_started", 1), ("action_started", 2)]


async def test_a_job_that_nobody_waits_for_any_more_is_not_given_out_again(database: Database) -> None:
    """Its execution was cancelled under it, and then its worker died."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await drain(database)
    async with session(database) as own:
        await own.execute("select noetl.lease_jobs('w')")
        await own.execute("select noetl.cancel_execution($1)", execution_id)
        await drain(database)
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 second'")
        assert await reap(own) == {}
        assert await own.fetchval("select status from noetl.queue") == "cancelled"
    assert await broken_invariants(database) == {}


async def test_a_requeued_job_is_announced_to_workers(database: Database) -> None:
    """They need not poll for it."""
    async with session(database) as listener, session(database) as own:
        heard = await listen(listener, "noetl_job")
        await put_job(own)
        await lose(own)
        assert await heard() == ""


async def test_a_job_that_is_lost_too_often_fails_its_step(database: Database) -> None:
    """Past the limit an `action_failed` that nobody retries, whatever the step's `retry` says."""
    await register(database, ONE_STEP.replace("code: x", "code: x, retry: 5"))
    await start(database)
    await drain(database)
    async with session(database) as own:
        attempts = [await lose(own) for _ in range(5)]
        assert attempts == [1, 2, 3, 4, 5]
        assert await own.fetchval("select status from noetl.queue") == "queued"
        await own.execute("select noetl.lease_jobs('w')")
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 second'")
        assert await reap(own) == {"lost": 1}
        event = await own.fetchrow("select error, meta from noetl.event where event_type = 'action_failed'")
    assert event is not None
    assert event["error"]["type"] == "lost_lease"
    assert event["meta"]["retryable"] is False
    await drain(database)
    [(status, error)] = await rows(database, "select status, error from noetl.execution")
    assert status == "FAILED"
    assert error["step"] == "a"
    assert "lost its lease 6 times" in error["message"]
    assert await value(database, "select status from noetl.queue") == "dead"
    assert await broken_invariants(database) == {}


async def test_no_lost_lease_at_all_may_be_allowed(database: Database) -> None:
    """A setting of 0: the first one fails the step."""
    async with session(database) as own:
        await put_job(own)
        await own.execute("select noetl.lease_jobs('w')")
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 second'")
        assert await reap(own, lost_leases=0) == {"lost": 1}


async def test_a_timeout_counts_from_the_first_lease_whatever_heartbeats_say(database: Database) -> None:
    """The attempt fails, is retried as the step says, and the late worker is stale."""
    await register(database, TIMEOUT)
    await start(database)
    await drain(database)
    async with session(database) as own:
        queue_id = await own.fetchval("select queue_id from noetl.lease_jobs('w')")
        await age(own, 31)
        assert await own.fetchval("select noetl.heartbeat_job($1, 'w', 1, 3600)", queue_id) is True
        assert await reap(own) == {"timed_out": 1}
        assert await own.fetchval("select noetl.heartbeat_job($1, 'w', 1)", queue_id) is False
        assert await own.fetchval("select noetl.complete_job($1, 'w', 1, '1')", queue_id) is False
        await drain(database)
        assert await own.fetchrow("select status, first_leased_at from noetl.queue") == ("retry", None)
    error = await value(database, "select error from noetl.event where event_type = 'action_failed'")
    assert error == {"message": "timeout: the action ran longer than 30 s", "type": "timeout"}
    assert await complete_jobs(database) == 1
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "COMPLETED"
    assert await broken_invariants(database) == {}


async def test_the_next_attempt_has_the_whole_time_again(database: Database) -> None:
    """After a retry the clock starts at the next lease; the second timeout is the last."""
    await register(database, TIMEOUT)
    await start(database)
    await drain(database)
    async with session(database) as own:
        await own.execute("select noetl.lease_jobs('w')")
        await age(own, 31)
        await reap(own)
        await drain(database)
        await own.execute("select noetl.lease_jobs('w')")
        assert await reap(own) == {}
        await age(own, 31)
        assert await reap(own) == {"timed_out": 1}
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "FAILED"


async def test_a_lost_lease_does_not_start_the_clock_again(database: Database) -> None:
    """It is the same attempt of the step, on another worker."""
    async with session(database) as own:
        await put_job(own, timeout_seconds=30.0)
        await lose(own)
        await age(own, 31)
        await own.execute("select noetl.lease_jobs('x')")
        assert await reap(own) == {"timed_out": 1}


async def test_a_job_without_a_timeout_may_take_long(database: Database) -> None:
    """As long as it has a lease."""
    async with session(database) as own:
        await put_job(own)
        await own.execute("select noetl.lease_jobs('w')")
        await age(own, 10**7)
        assert await reap(own) == {}


async def test_a_job_past_both_its_lease_and_its_time_is_told_once(database: Database) -> None:
    """The timeout is what its author asked for."""
    async with session(database) as own:
        await put_job(own, timeout_seconds=30.0)
        await own.execute("select noetl.lease_jobs('w')")
        await age(own, 31)
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 second'")
        assert await reap(own, lost_leases=0) == {"timed_out": 1}
        assert await reap(own, lost_leases=0) == {}


async def test_a_deadline_fails_the_execution_once(database: Database) -> None:
    """Its jobs are withdrawn, and the next look of the reaper finds nothing."""
    await register(database, ONE_STEP, metadata=", deadline: 60")
    await start(database, count=2)
    await drain(database)
    async with session(database) as own:
        assert await reap(own) == {}
        await own.execute("update noetl.execution_state set deadline_at = clock_timestamp() - interval '1 second'")
        assert await reap(own, most=1) == {"overdue": 1}
        assert await reap(own) == {"overdue": 1}
        assert await reap(own) == {}
    await drain(database)
    ended = await rows(database, "select status, error ->> 'message' from noetl.execution")
    assert [status for status, _ in ended] == ["FAILED", "FAILED"]
    assert all("deadline" in message for _, message in ended)
    assert await rows(database, "select distinct status from noetl.queue") == [("cancelled",)]
    assert await broken_invariants(database) == {}


async def test_an_execution_that_ended_in_time_has_no_deadline(database: Database) -> None:
    """It is cleared in the turn that ends it, or never written where that is the first one."""
    deadlines = "select count(deadline_at) from noetl.execution_state"
    at_once = "workflow:\n- {step: start, next: end}\n- {step: end}\n"
    await register(database, at_once, path="at_once", metadata=", deadline: 60")
    await start(database, "at_once")
    await drain(database)
    assert await value(database, deadlines) == 0
    await register(database, ONE_STEP, metadata=", deadline: 60")
    await start(database)
    await drain(database)
    assert await value(database, deadlines) == 1
    await complete_jobs(database)
    await drain(database)
    assert await value(database, deadlines) == 0


@pytest.mark.parametrize("most, looks", [(1, [1, 1, 1, 0]), (2, [2, 1, 0]), (100, [3, 0])])
async def test_one_look_takes_no_more_than_asked_for(database: Database, most: int, looks: list[int]) -> None:
    """So that a great many lost leases hold no long transaction."""
    async with session(database) as own:
        for node in "abc":
            await put_job(own, node)
        await own.execute("select noetl.lease_jobs('w', 3)")
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 second'")
        assert [(await reap(own, most=most)).get("requeued", 0) for _ in looks] == looks


async def test_two_reapers_do_not_wait_for_each_other(database: Database) -> None:
    """What one is reaping the other skips; what comes of it comes once."""
    async with session(database) as first, session(database) as second:
        await put_job(first)
        await first.execute("select noetl.lease_jobs('w')")
        await first.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 second'")
        async with first.transaction():
            assert await reap(first) == {"requeued": 1}
            assert await reap(second) == {}
        assert await reap(second) == {}


async def test_a_worker_that_answers_while_its_lease_is_reaped_waits_and_is_stale(database: Database) -> None:
    """One of the two is first; here the reaper."""
    async with session(database) as reaper, session(database) as worker:
        queue_id = await put_job(worker)
        await worker.execute("select noetl.lease_jobs('w')")
        await worker.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 second'")
        async with reaper.transaction():
            await reap(reaper)
            answer = asyncio.create_task(worker.fetchval("select noetl.complete_job($1, 'w', 1, '1')", queue_id))
            await blocked(reaper)
        assert await answer is False
        assert await worker.fetchval("select count(*) from noetl.event where event_type = 'action_completed'") == 0
