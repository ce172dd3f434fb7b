"""What the store does with draining jobs: those of the same batch, those that are locked, losers of a join."""

from __future__ import annotations

from noetl_broker.store.connect.connection import connect
from tests.brokers import broken_invariants, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.undos import STATUS, UNDOS, complete, fail, lease, work

BESIDE = """
workflow:
  - {step: start, next: [charge, check]}
  - step: charge
    type: python
    code: "def main(): ..."
    retry: {max_attempts: 3, initial_delay: 60}
    compensate: {type: python, code: "def main(): ..."}
  - {step: check, type: python, code: "def main(): ..."}
"""
RACE = """
workflow:
  - {step: start, next: [slow, fast]}
  - step: slow
    type: python
    code: "def main(): ..."
    compensate: {type: python, code: "def main(): ..."}
    next: first
  - {step: fast, type: python, code: "def main(): ...", next: first}
  - {step: first, join: {need: 1, losers: cancel}, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
JOBS = "select node_name, status, stop, draining from noetl.queue order by node_name"


async def test_a_job_that_no_worker_has_is_cancelled(database: Database) -> None:
    """Its visit hears of it, so that nothing is draining for ever."""
    await register(database, BESIDE)
    [execution] = await start(database)
    await drain(database)
    jobs = await lease(database)
    await execute(database, "update noetl.queue set status = 'queued', attempts = 0 where node_name = 'charge'")
    await fail(database, jobs["check"])
    await drain(database)
    assert ("charge", "cancelled", False, False) in await rows(database, JOBS)
    assert await value(database, STATUS, execution) == "FAILED"
    assert await rows(database, UNDOS, execution) == []
    assert await broken_invariants(database) == {}


async def test_a_retry_that_is_draining_is_cancelled(database: Database) -> None:
    """Also where the failure before it timed out: then its outcome is unknown."""
    await register(database, BESIDE)
    [execution] = await start(database)
    await drain(database)
    jobs = await lease(database)
    timed_out = {"message": "late", "type": "timeout"}
    await value(database, "select noetl.fail_job($1, 'w', $2, $3)", *jobs["charge"], timed_out)
    await drain(database)
    assert ("charge", "retry", False, False) in await rows(database, JOBS)
    await fail(database, jobs["check"])
    await drain(database)
    assert await value(database, STATUS, execution) == "FAILED"
    assert await rows(database, UNDOS, execution) == [("charge", "unknown")]
    assert await broken_invariants(database) == {}


async def test_a_success_and_the_failure_after_it_in_one_batch(database: Database) -> None:
    """The rows of the batch are not in the tables yet when the undo begins."""
    await register(database, BESIDE)
    [execution] = await start(database)
    await drain(database)
    jobs = await lease(database)
    await complete(database, jobs["charge"], {"id": 1})
    await fail(database, jobs["check"])
    assert await work(database) == ["charge!undo"]
    assert await rows(database, UNDOS, execution) == [("charge", "done")]
    assert await broken_invariants(database) == {}


async def test_a_failure_and_the_late_success_after_it_in_one_batch(database: Database) -> None:
    """The success is late, and undone."""
    await register(database, BESIDE)
    [execution] = await start(database)
    await drain(database)
    jobs = await lease(database)
    await fail(database, jobs["check"])
    await complete(database, jobs["charge"], {"id": 1})
    assert await work(database) == ["charge!undo"]
    assert await rows(database, UNDOS, execution) == [("charge", "done")]
    assert await value(database, STATUS, execution) == "FAILED"
    assert await broken_invariants(database) == {}


async def test_a_timeout_is_final_while_it_is_draining(database: Database) -> None:
    """The worker is not told to stop before, and nobody retries the job."""
    await register(database, BESIDE)
    [execution] = await start(database)
    await drain(database)
    await fail(database, (await lease(database))["check"])
    await drain(database)
    assert ("charge", "leased", False, True) in await rows(database, JOBS)
    await execute(database, "update noetl.queue set timeout_seconds = 1, first_leased_at = now() - interval '1 h'")
    await execute(database, "select noetl.reap(100, 5)")
    assert ("charge", "dead", True, True) in await rows(database, JOBS)
    await drain(database)
    assert await rows(database, UNDOS, execution) == [("charge", "unknown")]


async def test_a_start_and_a_cancel_in_one_batch_leave_nothing(database: Database) -> None:
    """The jobs of the batch are cancelled before anybody sees them."""
    await register(database, BESIDE)
    [execution] = await start(database)
    await value(database, "select noetl.cancel_execution($1)", execution)
    await drain(database)
    assert await rows(database, JOBS) == [("charge", "cancelled", False, False), ("check", "cancelled", False, False)]
    assert await value(database, STATUS, execution) == "CANCELLED"
    assert await broken_invariants(database) == {}


async def test_a_job_that_is_locked_is_left_to_the_reaper(database: Database) -> None:
    """A lease that commits after the turn is draining, too."""
    await register(database, BESIDE)
    [execution] = await start(database)
    await drain(database)
    other = await connect(database, name="test")
    try:
        async with other.transaction():
            jobs = {row[0]: (row[1], row[2]) for row in await other.fetch(
                "select node_name, queue_id, attempts from noetl.lease_jobs('w', 9)"
            )}  # fmt: skip
            await value(database, "select noetl.cancel_execution($1)", execution)
            await drain(database)
            assert await rows(database, "select node_id, draining from noetl.job_to_cancel order by node_id") == [
                (f"{execution}:charge", True), (f"{execution}:check", False)
            ]  # fmt: skip
    finally:
        await other.close()
    await execute(database, "select noetl.reap(100, 5)")
    assert await rows(database, JOBS) == [("charge", "leased", False, True), ("check", "leased", True, False)]
    await execute(database, "update noetl.queue set lease_until = clock_timestamp() where node_name = 'charge'")
    await execute(database, "select noetl.reap(100, 5)")
    await drain(database)
    assert await value(database, STATUS, execution) == "CANCELLED"
    assert await rows(database, UNDOS, execution) == [("charge", "unknown")]
    assert jobs["charge"][1] == 1
    await execute(database, "select noetl.reap(100, 5)")
    assert await broken_invariants(database) == {}


async def test_a_locked_job_that_nobody_leased_is_cancelled_by_the_reaper(database: Database) -> None:
    """Its visit hears of it then."""
    await register(database, BESIDE)
    [execution] = await start(database)
    await drain(database)
    other = await connect(database, name="test")
    try:
        async with other.transaction():
            await other.fetch("select from noetl.queue for update")
            await value(database, "select noetl.cancel_execution($1)", execution)
            await drain(database)
    finally:
        await other.close()
    assert await value(database, STATUS, execution) == "COMPENSATING"
    await execute(database, "select noetl.reap(100, 5)")
    await drain(database)
    assert await value(database, STATUS, execution) == "CANCELLED"
    assert await broken_invariants(database) == {}


async def test_a_leased_loser_of_a_join_holds_the_end(database: Database) -> None:
    """It is not told to stop. Its late success is undone only if the execution fails later."""
    await register(database, RACE)
    [execution] = await start(database)
    await drain(database)
    jobs = await lease(database)
    await complete(database, jobs["fast"])
    await drain(database)
    await complete(database, (await lease(database))["first"])
    await drain(database)
    assert await value(database, STATUS, execution) == "RUNNING"
    assert await value(database, "select noetl.heartbeat_job($1, 'w', $2)", *jobs["slow"])
    await complete(database, jobs["slow"], {"id": 1})
    await drain(database)
    assert await value(database, STATUS, execution) == "COMPLETED"
    assert await rows(database, UNDOS, execution) == [("slow", "open")]
    assert await value(database, "select noetl.undo_execution($1)", execution)
    assert await work(database) == ["slow!undo"]
    assert await rows(database, UNDOS, execution) == [("slow", "done")]
    assert await broken_invariants(database) == {}


async def test_a_lost_lease_of_a_draining_job_is_final_in_a_pause_too(database: Database) -> None:
    """It is not queued again, so the pause does not hold it."""
    await register(database, RACE)
    [execution] = await start(database)
    await drain(database)
    jobs = await lease(database)
    await complete(database, jobs["fast"])
    await value(database, "select noetl.pause_execution($1)", execution)
    await drain(database)
    await execute(database, "update noetl.queue set lease_until = clock_timestamp() where node_name = 'slow'")
    await execute(database, "select noetl.reap(100, 5)")
    await drain(database)
    assert ("slow", "dead", False, True) in await rows(database, JOBS)
    await value(database, "select noetl.resume_execution($1)", execution)
    await drain(database)
    await work(database)
    assert await value(database, STATUS, execution) == "COMPLETED"
    assert await rows(database, UNDOS, execution) == [("slow", "unknown")]
    assert await broken_invariants(database) == {}
