"""Jobs whose worker died: requeued, timed out or withdrawn."""

from __future__ import annotations

from tests.brokers import broken_invariants, complete_jobs, drain, register, start
from tests.postgres import Database
from tests.sessions import session
from tests.store.test_reaper import ONE_STEP, TIMEOUT, age, lose_lease, reap


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
