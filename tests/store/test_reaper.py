"""The reaper: expired leases, jobs of dead workers, timeouts of actions, and deadlines of executions."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.brokers import broken_invariants, complete_jobs, drain, register, rows, start, value
from tests.postgres import Database
from tests.sessions import Session, blocked, listen, put_job, session

ONE_STEP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""
EXPIRE = "update noetl.queue set lease_until = clock_timestamp() - interval '1 second' where status = 'leased'"
FIRE = "select fired from noetl.fire_timers($1)"
TIMEOUT = ONE_STEP.replace("code: x", "code: x, timeout: 30, retry: {max_attempts: 2, initial_delay: 0}")


async def lose_lease(own: Session[Any], worker: str = "w") -> int:
    """Lease a job, expire the lease and reap. Return the attempt."""
    attempt = int(await own.fetchval("select attempts from noetl.lease_jobs($1)", worker))
    await own.execute(EXPIRE)
    await reap(own)
    return attempt


async def reap(own: Session[Any], *, most: int = 100, lost_leases: int = 5) -> dict[str, int]:
    """Run the reaper once and return what it did."""
    row = await own.fetchrow("select * from noetl.reap($1, $2)", most, lost_leases)
    return {name: number for name, number in row.items() if number} if row else {}


async def age(own: Session[Any], seconds: float) -> None:
    """Move the begin of the running attempt back."""
    await own.execute("update noetl.queue set first_leased_at = first_leased_at - make_interval(secs => $1)", seconds)


async def test_the_reaper_leaves_jobs_in_time(database: Database) -> None:
    """A valid lease, a queued job, a finished job, and a job without a timeout that runs for long."""
    async with session(database) as own:
        for node in ("held", "done", "endless", "queued"):
            await put_job(own, node, timeout_seconds=None if node == "endless" else 60.0)
        await own.execute("select noetl.lease_jobs('w', 3)")
        await own.execute(
            "update noetl.queue set status = 'done', lease_until = now() - interval '1 day' where node_name = 'done'"
        )
        await own.execute(
            "update noetl.queue set first_leased_at = first_leased_at - interval '1 year' where node_name = 'endless'"
        )
        before = await own.fetch("select * from noetl.queue order by queue_id")
        assert await reap(own) == {}
        assert await own.fetch("select * from noetl.queue order by queue_id") == before


async def test_a_lost_lease_requeues_the_job(database: Database) -> None:
    """It writes no event and counts as no attempt of the step. The next lease has the next number.

    Workers are notified and need not poll. A limit of zero fails the step at once.
    """
    async with session(database) as own, session(database) as listener:
        await put_job(own)
        next_notification = await listen(listener, "noetl_job")
        await own.execute("select noetl.lease_jobs('w')")
        await own.execute(EXPIRE)
        assert await reap(own) == {"requeued": 1}
        assert await next_notification() == ""
        assert await own.fetchrow("select status, lost_leases, lease_until from noetl.queue") == ("queued", 1, None)
        assert await own.fetchval("select attempts from noetl.lease_jobs('x')") == 2
        kinds = await own.fetch("select event_type, meta -> 'attempt' from noetl.event order by created_at")
        assert [tuple(row) for row in kinds] == [("action_started", 1), ("action_started", 2)]
        await own.execute(EXPIRE)
        assert await reap(own, lost_leases=0) == {"lost": 1}


async def test_the_job_of_a_cancelled_execution_is_not_requeued(database: Database) -> None:
    """Its worker died after the cancel."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await drain(database)
    async with session(database) as own:
        await own.execute("select noetl.lease_jobs('w')")
        await own.execute("select noetl.cancel_execution($1)", execution_id)
        await drain(database)
        await own.execute(EXPIRE)
        assert await reap(own) == {}
        assert await own.fetchval("select status from noetl.queue") == "cancelled"
    assert await broken_invariants(database) == {}


async def test_a_job_that_loses_too_many_leases_fails_its_step(database: Database) -> None:
    """`action_failed` is not retried, whatever the `retry` of the step."""
    await register(database, ONE_STEP.replace("code: x", "code: x, retry: 5"))
    await start(database)
    await drain(database)
    async with session(database) as own:
        attempts = [await lose_lease(own) for _ in range(5)]
        assert attempts == [1, 2, 3, 4, 5]
        assert await own.fetchval("select status from noetl.queue") == "queued"
        await own.execute("select noetl.lease_jobs('w')")
        await own.execute(EXPIRE)
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


async def test_heartbeats_do_not_extend_a_timeout(database: Database) -> None:
    """The attempt fails and is retried; the late worker is stale. The next attempt has the whole time again."""
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
        await own.execute("select noetl.lease_jobs('w')")
        assert await reap(own) == {}
        await age(own, 31)
        assert await reap(own) == {"timed_out": 1}
    error = await value(database, "select error from noetl.event where event_type = 'action_failed' limit 1")
    assert error == {"message": "timeout: the action ran longer than 30 s", "type": "timeout"}
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "FAILED"
    assert await broken_invariants(database) == {}


async def test_a_lost_lease_does_not_restart_the_timeout(database: Database) -> None:
    """It is the same attempt of the step, on another worker."""
    async with session(database) as own:
        await put_job(own, timeout_seconds=30.0)
        await lose_lease(own)
        await age(own, 31)
        await own.execute("select noetl.lease_jobs('x')")
        assert await reap(own) == {"timed_out": 1}


async def test_a_job_past_its_lease_and_its_timeout_fails_once(database: Database) -> None:
    """The error is the timeout."""
    async with session(database) as own:
        await put_job(own, timeout_seconds=30.0)
        await own.execute("select noetl.lease_jobs('w')")
        await age(own, 31)
        await own.execute(EXPIRE)
        assert await reap(own, lost_leases=0) == {"timed_out": 1}
        assert await reap(own, lost_leases=0) == {}


async def test_a_deadline_fails_the_execution_once(database: Database) -> None:
    """Its jobs are cancelled. The next poll finds nothing."""
    await register(database, ONE_STEP, metadata="deadline: 60")
    await start(database, count=2)
    await drain(database)
    async with session(database) as own:
        assert await own.fetchval(FIRE, 10) == 0
        await own.execute("update noetl.timer set due_at = clock_timestamp() - interval '1 second'")
        assert [await own.fetchval(FIRE, 1), await own.fetchval(FIRE, 10), await own.fetchval(FIRE, 10)] == [1, 1, 0]
    await drain(database)
    ended = await rows(database, "select status, error ->> 'message' from noetl.execution")
    assert [status for status, _ in ended] == ["FAILED", "FAILED"]
    assert all("deadline" in message for _, message in ended)
    named = "select distinct node_name from noetl.event where event_type = 'execution_deadline'"
    assert await rows(database, named) == [("story",)]
    assert await rows(database, "select distinct status from noetl.queue") == [("cancelled",)]
    assert await broken_invariants(database) == {}


async def test_an_execution_that_ended_in_time_has_no_deadline(database: Database) -> None:
    """The last turn clears it, and a first turn that ends the execution writes none."""
    deadlines = "select count(*) from noetl.timer"
    at_once = "workflow:\n- {step: start, next: end}\n- {step: end}\n"
    await register(database, at_once, path="at_once", metadata="deadline: 60")
    await start(database, "at_once")
    await drain(database)
    assert await value(database, deadlines) == 0
    await register(database, ONE_STEP, metadata="deadline: 60")
    await start(database)
    await drain(database)
    assert await value(database, deadlines) == 1
    await complete_jobs(database)
    await drain(database)
    assert await value(database, deadlines) == 0


async def test_one_run_of_the_reaper_takes_no_more_than_its_batch(database: Database) -> None:
    """Many lost leases make no long transaction."""
    async with session(database) as own:
        for node in "abc":
            await put_job(own, node)
        await own.execute("select noetl.lease_jobs('w', 3)")
        await own.execute(EXPIRE)
        assert [(await reap(own, most=2)).get("requeued", 0) for _ in range(3)] == [2, 1, 0]


async def test_two_reapers_do_not_wait_for_each_other(database: Database) -> None:
    """One skips the rows of the other; each result comes once."""
    async with session(database) as first, session(database) as second:
        await put_job(first)
        await put_job(first, "late", timeout_seconds=30.0)
        await first.execute("select noetl.lease_jobs('w', 2)")
        await first.execute(EXPIRE)
        await age(first, 31)
        async with first.transaction():
            assert await reap(first) == {"requeued": 1, "timed_out": 1}
            assert await reap(second) == {}
        assert await reap(second) == {}


async def test_an_answer_during_the_reap_waits_and_is_stale(database: Database) -> None:
    """The reaper is first here."""
    async with session(database) as reaper, session(database) as worker:
        queue_id = await put_job(worker)
        await worker.execute("select noetl.lease_jobs('w')")
        await worker.execute(EXPIRE)
        async with reaper.transaction():
            await reap(reaper)
            answer = asyncio.create_task(worker.fetchval("select noetl.complete_job($1, 'w', 1, '1')", queue_id))
            await blocked(reaper)
        assert await answer is False
        assert await worker.fetchval("select count(*) from noetl.event where event_type = 'action_completed'") == 0


async def test_the_reaper_skips_executions_that_a_broker_is_deciding(database: Database) -> None:
    """The broker may be ending the execution. Else the reaper could requeue its job after the end."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await drain(database)
    async with session(database) as own, session(database) as broker:
        await own.execute("select noetl.lease_jobs('w')")
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 second'")
        await broker.execute("begin")
        await broker.execute("select pg_advisory_xact_lock($1)", execution_id)
        await broker.execute("update noetl.execution set status = 'FAILED' where execution_id = $1", execution_id)
        assert await reap(own) == {}
        assert await own.fetchval("select status from noetl.queue") == "leased"
        await broker.execute("commit")
        assert await reap(own) == {}
        assert await own.fetchval("select status from noetl.queue") == "cancelled"


async def test_the_job_of_a_cancelled_item_is_not_requeued(database: Database) -> None:
    """Another item failed, the step went on, and then the worker died."""
    await register(
        database,
        """
        workflow:
        - step: start
          next: each
        - step: each
          type: python
          code: x
          on_error: continue
          loop: {collection: "{{ [1, 2] }}", element: one, mode: async, distribute: true}
          next: last
        - {step: last, type: python, code: x, next: end}
        - {step: end}
        """,
    )
    await start(database)
    await drain(database)
    async with session(database) as own:
        [failed, held] = await own.fetch("select queue_id, attempts from noetl.lease_jobs('w', 2)")
        await own.execute("select noetl.fail_job($1, 'w', 1, '{\"message\": \"boom\"}', false)", failed["queue_id"])
        await drain(database)
        await own.execute(
            "update noetl.queue set lease_until = clock_timestamp() - interval '1 second' where status = 'leased'"
        )
        assert await reap(own) == {}
        assert await own.fetchval("select status from noetl.queue where queue_id = $1", held["queue_id"]) == "cancelled"
    assert await complete_jobs(database) == 1
    await drain(database)
    assert await broken_invariants(database) == {}


async def test_a_requeued_job_times_out_without_a_worker(database: Database) -> None:
    """The time counts from the first lease of the attempt."""
    await register(database, TIMEOUT)
    await start(database)
    await drain(database)
    async with session(database) as own:
        await lose_lease(own)
        assert await own.fetchval("select status from noetl.queue") == "queued"
        assert await reap(own) == {}
        await age(own, 31)
        assert await reap(own) == {"timed_out": 1}
        await drain(database)
        assert await own.fetchrow("select status, first_leased_at from noetl.queue") == ("retry", None)
    assert await complete_jobs(database) == 1
    await drain(database)
    assert await broken_invariants(database) == {}


async def test_skipped_leases_do_not_fill_the_batch_of_the_reaper(database: Database) -> None:
    """They expired first and are as many as one batch."""
    await register(database, ONE_STEP)
    busy, _ = await start(database, count=2)
    await drain(database)
    async with session(database) as own, session(database) as broker:
        await own.execute("select noetl.lease_jobs('w', 2)")
        late = """
            update noetl.queue
            set lease_until = clock_timestamp() - case when execution_id = $1 then 2 else 1 end * interval '1 second'"""
        await own.execute(late, busy)
        await broker.execute("begin")
        await broker.execute("select pg_advisory_xact_lock($1)", busy)
        assert await reap(own, most=1) == {"requeued": 1}
        assert await own.fetchval("select status from noetl.queue where execution_id = $1", busy) == "leased"
        await broker.execute("rollback")
        assert await reap(own, most=1) == {"requeued": 1}
