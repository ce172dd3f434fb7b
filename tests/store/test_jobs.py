"""The calls of a worker on a real database: batches and faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from noetl_broker.errors import DatabaseFault, SchemaFault
from noetl_broker.store.worker import jobs as jobs_module
from noetl_broker.store.worker.jobs import (
    AttemptFailure,
    Completion,
    JobDatabase,
    Lease,
    RefusedFault,
    complete_jobs,
    fail_jobs,
    heartbeat_job,
    heartbeat_jobs,
    lease_jobs,
)
from tests.chaos.silent_proxy import SilentProxy
from tests.postgres import Database, psycopg_connect

PATIENCE_SECONDS = 55.0
ME = "host:1:aa"
OTHER = "host:2:bb"


def queue(database: Database, *types: str) -> list[int]:
    """Queue a job of each type."""
    insert = """
        insert into noetl.queue (execution_id, node_id, node_name, node_type, action, context, timeout_seconds)
        values (1, %s, 'step', %s, '{"type": "noop"}', '{"visit": 1}', 2.5)
        returning queue_id
    """
    with psycopg_connect(database, autocommit=True) as connection:
        rows = [connection.execute(insert, (f"1:s{n}", kind)).fetchone() for n, kind in enumerate(types)]
    return [row[0] for row in rows if row is not None]


def query(database: Database, statement: str) -> list[tuple[Any, ...]]:
    """Run a query on the database of the test."""
    with psycopg_connect(database, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


@pytest.fixture
async def jobs(database: Database) -> AsyncIterator[JobDatabase]:
    """Yield the connections of a worker to the database of the test."""
    async with JobDatabase(database, application_name="test worker") as own:
        yield own


async def lease(jobs: JobDatabase, worker_id: str = ME, number: int = 10, seconds: int = 60) -> list[Lease]:
    """Lease jobs of any type."""
    leased = await lease_jobs(jobs, worker_id=worker_id, max_jobs=number, lease_seconds=seconds, node_types=None)
    return [job.lease for job in leased]


async def test_a_leased_job_has_the_fields_that_a_tool_needs(database: Database, jobs: JobDatabase) -> None:
    """Only the requested types are leased, with the fencing token."""
    queue_id, _ = queue(database, "noop", "duckdb")
    [job] = await lease_jobs(jobs, worker_id=ME, max_jobs=10, lease_seconds=60, node_types=["noop", "http"])
    assert (job.lease, job.node_type, job.node_name) == (Lease(queue_id, 1), "noop", "step")
    assert (job.action, job.context, job.timeout_seconds) == ('{"type": "noop"}', '{"visit": 1}', 2.5)


async def test_answers_are_sent_in_one_call(database: Database, jobs: JobDatabase) -> None:
    """True for each that counted. The same answer again is true, another attempt's is false."""
    queue(database, "noop", "noop")
    first, second = await lease(jobs)
    stale = Lease(second.queue_id, 9)
    completions = [Completion(first, '{"a": 1}'), Completion(stale)]
    expected = {first.queue_id: True, second.queue_id: False}
    assert await complete_jobs(jobs, ME, completions) == expected
    assert await complete_jobs(jobs, ME, completions) == expected
    assert await complete_jobs(jobs, OTHER, [Completion(second)]) == {second.queue_id: False}
    assert await fail_jobs(jobs, ME, [AttemptFailure(second, {"message": "no"}, retryable=False)]) == {
        second.queue_id: True
    }
    events = query(database, "select event_type, result, error from noetl.event order by created_at, event_type")
    assert ("action_completed", {"a": 1}, None) in events
    assert ("action_failed", None, {"message": "no"}) in events


async def test_a_heartbeat_is_true_for_the_holder_of_the_lease_only(database: Database, jobs: JobDatabase) -> None:
    """Everybody else gets false."""
    queue(database, "noop")
    [held] = await lease(jobs)
    assert await heartbeat_jobs(jobs, ME, [held], lease_seconds=60) == {held.queue_id: True}
    assert not await heartbeat_job(jobs, OTHER, held, lease_seconds=60)
    assert await complete_jobs(jobs, ME, [Completion(held)]) == {held.queue_id: True}
    assert not await heartbeat_job(jobs, ME, held, lease_seconds=60)


async def test_a_value_that_jsonb_cannot_hold_is_refused(database: Database, jobs: JobDatabase) -> None:
    """The worker can still fail the job."""
    queue(database, "noop")
    [held] = await lease(jobs)
    with pytest.raises(RefusedFault):
        await complete_jobs(jobs, ME, [Completion(held, '"\\u0000"')])
    with pytest.raises(RefusedFault):
        await fail_jobs(jobs, ME, [AttemptFailure(held, {})])
    assert await fail_jobs(jobs, ME, [AttemptFailure(held, {"message": "not stored"})]) == {held.queue_id: True}


async def test_leasing_without_our_schema_is_a_schema_fault(empty_database: Database) -> None:
    """The error names the remedy."""
    async with JobDatabase(empty_database, application_name="test worker") as own:
        with pytest.raises(SchemaFault, match="noetl-broker migrate"):
            await lease(own)


async def test_an_unreachable_database_is_a_database_fault() -> None:
    """For calls and for the listener."""
    async with JobDatabase(Database(dsn="postgresql://127.0.0.1:1/x"), application_name="test worker") as own:
        with pytest.raises(DatabaseFault):
            await lease(own)
        with pytest.raises(DatabaseFault):
            await own.listen()


async def wait_for_notification(jobs: JobDatabase, database: Database) -> None:
    """Notify the workers and wait until these connections receive it."""
    jobs.notified.clear()
    query(database, "select pg_notify('noetl_job', '')")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await jobs.notified.wait()


async def test_a_notification_may_say_when_a_job_is_due(database: Database) -> None:
    """The worker is woken then. A text that is no number wakes it at once."""
    async with JobDatabase(database, application_name="test worker") as own:
        await own.listen()
        for seconds, awake in (("59", False), ("0.001", True), ("soon", True)):
            own.notified.clear()
            own.cancelled.clear()
            query(database, f"select pg_notify('noetl_job', '{seconds}'), pg_notify('noetl_cancel', '')")
            async with asyncio.timeout(PATIENCE_SECONDS):
                await own.cancelled.wait()
                if awake:
                    await own.notified.wait()
            assert own.notified.is_set() == awake


async def test_a_listener_that_failed_to_listen_is_replaced(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server did not answer in time, or the caller had no more time."""
    monkeypatch.setattr(jobs_module, "LISTEN_SECONDS", 3.0)
    async with (
        SilentProxy(database, loses=b"LISTEN") as proxy,
        JobDatabase(proxy.database, application_name="test worker") as own,
    ):
        with pytest.raises(DatabaseFault):
            await own.listen()
        monkeypatch.undo()
        await own.listen()
        await wait_for_notification(own, database)


async def test_a_listener_that_was_cancelled_is_replaced(database: Database) -> None:
    """Our own stop cancelled it."""
    async with (
        SilentProxy(database, loses=b"LISTEN") as proxy,
        JobDatabase(proxy.database, application_name="test worker") as own,
    ):
        listening = asyncio.create_task(own.listen())
        await proxy.dropped.wait()
        listening.cancel()
        await asyncio.wait([listening])
        await own.listen()
        await wait_for_notification(own, database)
