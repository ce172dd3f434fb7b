"""A worker's calls on a real database: the batched forms, and what each fault becomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from noetl_broker.errors import DatabaseFault, SchemaFault
from noetl_broker.store import jobs as jobs_module
from noetl_broker.store.jobs import (
    Completion,
    Failing,
    JobDatabase,
    Lease,
    RefusedFault,
    complete_jobs,
    fail_jobs,
    heartbeat_job,
    heartbeat_jobs,
    lease_jobs,
)
from tests.chaos.swallow import Swallower
from tests.postgres import Database

PATIENCE_SECONDS = 10.0
ME = "host:1:aa"
OTHER = "host:2:bb"


def queue(database: Database, *types: str) -> list[int]:
    """Put jobs of these types into the queue."""
    insert = """
        insert into noetl.queue (execution_id, node_id, node_name, node_type, action, context, timeout_seconds)
        values (1, %s, 'step', %s, '{"type": "noop"}', '{"visit": 1}', 2.5)
        returning queue_id
    """
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        rows = [connection.execute(insert, (f"1:s{n}", kind)).fetchone() for n, kind in enumerate(types)]
    return [row[0] for row in rows if row is not None]


def ask(database: Database, statement: str) -> list[tuple[Any, ...]]:
    """Ask the test's database."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


@pytest.fixture
async def jobs(database: Database) -> AsyncIterator[JobDatabase]:
    """A worker's connections to this test's database."""
    async with JobDatabase(database.dsn, application_name="test worker") as own:
        yield own


async def lease(jobs: JobDatabase, worker_id: str = ME, number: int = 10, seconds: int = 60) -> list[Lease]:
    """Lease jobs of any type."""
    leased = await lease_jobs(jobs, worker_id=worker_id, max_jobs=number, lease_seconds=seconds, node_types=None)
    return [job.lease for job in leased]


async def test_a_leased_job_has_what_a_tool_needs(database: Database, jobs: JobDatabase) -> None:
    """Only of the asked types, with the fencing token."""
    queue_id, _ = queue(database, "noop", "duckdb")
    [job] = await lease_jobs(jobs, worker_id=ME, max_jobs=10, lease_seconds=60, node_types=["noop", "http"])
    assert (job.lease, job.node_type, job.node_name) == (Lease(queue_id, 1), "noop", "step")
    assert (job.action, job.context, job.timeout_seconds) == ('{"type": "noop"}', '{"visit": 1}', 2.5)


async def test_answers_are_sent_in_one_call(database: Database, jobs: JobDatabase) -> None:
    """Each is told whether it counted; the same again is true again, another attempt's is false."""
    queue(database, "noop", "noop")
    first, second = await lease(jobs)
    stale = Lease(second.queue_id, 9)
    completions = [Completion(first, '{"a": 1}'), Completion(stale)]
    expected = {first.queue_id: True, second.queue_id: False}
    assert await complete_jobs(jobs, ME, completions) == expected
    assert await complete_jobs(jobs, ME, completions) == expected
    assert await complete_jobs(jobs, OTHER, [Completion(second)]) == {second.queue_id: False}
    assert await fail_jobs(jobs, ME, [Failing(second, {"message": "no"}, retryable=False)]) == {second.queue_id: True}
    events = ask(database, "select event_type, result, error from noetl.event order by created_at, event_type")
    assert ("action_completed", {"a": 1}, None) in events
    assert ("action_failed", None, {"message": "no"}) in events


async def test_a_heartbeat_tells_whose_the_lease_is(database: Database, jobs: JobDatabase) -> None:
    """False for everybody but its holder."""
    queue(database, "noop")
    [held] = await lease(jobs)
    assert await heartbeat_jobs(jobs, ME, [held], lease_seconds=60) == {held.queue_id: True}
    assert not await heartbeat_job(jobs, OTHER, held, lease_seconds=60)
    assert await complete_jobs(jobs, ME, [Completion(held)]) == {held.queue_id: True}
    assert not await heartbeat_job(jobs, ME, held, lease_seconds=60)


async def test_a_value_that_jsonb_cannot_hold_is_refused(database: Database, jobs: JobDatabase) -> None:
    """And the job can still be failed."""
    queue(database, "noop")
    [held] = await lease(jobs)
    with pytest.raises(RefusedFault):
        await complete_jobs(jobs, ME, [Completion(held, '"\\u0000"')])
    with pytest.raises(RefusedFault):
        await fail_jobs(jobs, ME, [Failing(held, {})])
    assert await fail_jobs(jobs, ME, [Failing(held, {"message": "not stored"})]) == {held.queue_id: True}


async def test_a_database_without_our_schema_is_told(empty_database: Database) -> None:
    """With the remedy; waiting would not help."""
    async with JobDatabase(empty_database.dsn, application_name="test worker") as own:
        with pytest.raises(SchemaFault, match="noetl-broker migrate"):
            await lease(own)


async def test_a_database_that_is_away_is_a_fault_to_wait_out() -> None:
    """Both for calls and for the listener."""
    async with JobDatabase("postgresql://127.0.0.1:1/x", application_name="test worker") as own:
        with pytest.raises(DatabaseFault):
            await lease(own)
        with pytest.raises(DatabaseFault):
            await own.listen()


async def heard(jobs: JobDatabase, database: Database) -> None:
    """Ring until these connections hear it; at once, where they listen."""
    jobs.rung.clear()
    ask(database, "select pg_notify('noetl_job', '')")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await jobs.rung.wait()


async def test_a_listener_that_could_not_listen_is_made_anew(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether nobody answers it in time, or whoever waits for it has no more time: the next call listens."""
    monkeypatch.setattr(jobs_module, "LISTEN_SECONDS", 0.5)
    async with (
        Swallower(database, loses=b"LISTEN") as wire,
        JobDatabase(wire.database.dsn, application_name="test worker") as own,
    ):
        with pytest.raises(DatabaseFault):
            await own.listen()
        monkeypatch.undo()
        await own.listen()
        await heard(own, database)


async def test_a_listener_whose_wait_was_ended_is_made_anew(database: Database) -> None:
    """The same, where it was our own stop."""
    async with (
        Swallower(database, loses=b"LISTEN") as wire,
        JobDatabase(wire.database.dsn, application_name="test worker") as own,
    ):
        listening = asyncio.create_task(own.listen())
        await wire.swallowed.wait()
        listening.cancel()
        await asyncio.wait([listening])
        await own.listen()
        await heard(own, database)
