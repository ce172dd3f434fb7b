"""Leases: the order of jobs, the length of a lease, and the fencing token."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.brokers import PATIENCE_SECONDS, value
from tests.postgres import Database
from tests.sessions import Session, put_job, refused, session

ONCE = "noetl.complete_job($1, 'w', 1, only_once => true)"


async def lease(own: Session[Any], *arguments: Any) -> list[tuple[str, int]]:
    """Lease as worker `w` by default. Return node names and attempts."""
    values = arguments or ("w",)
    places = ", ".join(f"${index}" for index in range(1, len(values) + 1))
    return [
        (row["node_name"], row["attempts"])
        for row in await own.fetch(f"select * from noetl.lease_jobs({places})", *values)
    ]


async def expire(own: Session[Any]) -> None:
    """End all leases and run the reaper."""
    await own.execute(
        "update noetl.queue set lease_until = clock_timestamp() - interval '1 second' where status = 'leased'"
    )
    await own.execute("select noetl.reap(100, 5)")


async def test_jobs_are_leased_by_priority_then_age(database: Database) -> None:
    """The age counts from the time when a job became available."""
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    async with session(database) as own:
        await put_job(own, "low", priority=1, available_at=early)
        await put_job(own, "late", available_at=late)
        await put_job(own, "early", available_at=early)
        await put_job(own, "high", priority=9, available_at=late)
        assert await lease(own) == [("high", 1)]
        assert await lease(own, "w", 10) == [("early", 1), ("late", 1), ("low", 1)]


async def test_only_jobs_of_the_requested_types_are_leased(database: Database) -> None:
    """Null means all types, an empty list none."""
    async with session(database) as own:
        for kind in ("python", "http", "duckdb"):
            await put_job(own, kind, node_type=kind)
        assert await lease(own, "w", 10, 60, []) == []
        assert await lease(own, "w", 10, 60, ["http", "nothing"]) == [("http", 1)]
        assert len(await lease(own, "w", 10, 60, None)) == 2


async def test_only_queued_and_retried_jobs_are_leased(database: Database) -> None:
    """Jobs of other states stay as they are. A retry is not leased before its delay ends, by the database's clock."""
    async with session(database) as own:
        for status in ("leased", "done", "failed", "dead", "cancelled", "queued", "retry"):
            await put_job(own, status, status=status)
        await put_job(own, "later", status="retry", available_at=datetime.now(UTC) + timedelta(hours=1))
        assert sorted(await lease(own, "w", 10)) == [("queued", 1), ("retry", 1)]


async def test_two_sessions_lease_different_jobs(database: Database) -> None:
    """A session skips jobs that another one is leasing, without a wait for its commit."""
    async with session(database) as first, session(database) as second:
        for node in "abc":
            await put_job(first, node)
        async with first.transaction():
            assert await lease(first, "first", 2) == [("a", 1), ("b", 1)]
            assert await lease(second, "second", 2) == [("c", 1)]
            assert await lease(second, "second", 2) == []


async def test_a_rolled_back_lease_leaves_no_attempt(database: Database) -> None:
    """The next lease is attempt 1 and writes the only `action_started`."""
    async with session(database) as own:
        await put_job(own)
        transaction = own.transaction()
        await transaction.start()
        await lease(own)
        await transaction.rollback()
        assert await lease(own) == [("a", 1)]
        assert await own.fetchval("select count(*) from noetl.event") == 1


async def test_a_lease_has_its_end_and_its_worker(database: Database) -> None:
    """The clock of the database counts. The returned row equals the stored row."""
    async with session(database) as own:
        await put_job(own)
        row = await own.fetchrow("select * from noetl.lease_jobs('w', 1, 90)")
        assert row == await own.fetchrow("select * from noetl.queue")
        assert row is not None
        assert (row["status"], row["worker_id"], row["attempts"]) == ("leased", "w", 1)
        assert row["lease_until"] - row["last_heartbeat"] == timedelta(seconds=90)
        assert row["first_leased_at"] == row["last_heartbeat"]


async def test_a_lease_writes_action_started(database: Database) -> None:
    """Its parent is `step_started`, and it is later, whatever the clocks say."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    async with session(database) as own:
        queue_id = await put_job(own, event_id=42, created_at=tomorrow, updated_at=tomorrow)
        await lease(own)
        await own.execute("select noetl.complete_job($1, 'w', 1)", queue_id)
        events = await own.fetch("select * from noetl.event order by created_at")
    assert [event["event_type"] for event in events] == ["action_started", "action_completed"]
    started, completed = events
    assert started["parent_event_id"] == completed["parent_event_id"] == 42
    assert tomorrow < started["created_at"] < completed["created_at"]
    assert started["meta"] == {"queue_id": queue_id, "attempt": 1}
    assert (started["node_id"], started["status"], started["worker_id"]) == ("1:a", "RUNNING", "w")


async def test_bad_arguments_of_leases_are_refused(database: Database) -> None:
    """NB400; nothing is leased or extended. Integers and JSON have no NaN."""
    leases = ("'w', 0", "'w', -1", "'w', null", "'w', 1, 0", "'w', 1, null", "''", "null")
    calls = [f"lease_jobs({arguments})" for arguments in leases]
    calls += ["heartbeat_job(1, 'w', 1, 0)", "heartbeat_job(1, 'w', 1, -5)"]
    async with session(database) as own:
        await put_job(own)
        for call in calls:
            async with refused("NB400"):
                await own.execute(f"select noetl.{call}")
        for call in ("lease_jobs('w', 'NaN'::float8::int)", "complete_job(1, 'w', 1, 'NaN')"):
            async with refused("22", "out of range|invalid input syntax"):
                await own.execute(f"select noetl.{call}")
        assert await own.fetchval("select status from noetl.queue") == "queued"


async def test_a_heartbeat_extends_the_lease(database: Database) -> None:
    """The new end counts from now; it may be earlier."""
    async with session(database) as own:
        queue_id = await put_job(own)
        await lease(own, "w", 1, 1000)
        assert await own.fetchval("select noetl.heartbeat_job($1, 'w', 1, 50)", queue_id) is True
        row = await own.fetchrow(
            "select lease_until - last_heartbeat as rest, first_leased_at, last_heartbeat from noetl.queue"
        )
        assert row is not None
        assert timedelta(seconds=49) < row["rest"] < timedelta(seconds=51)
        assert row["first_leased_at"] < row["last_heartbeat"]


async def test_a_heartbeat_without_seconds_uses_the_last_length(database: Database) -> None:
    """That is the length of the lease or of the last heartbeat; a minute for a lease of a NoETL server."""
    beat = "select noetl.heartbeat_job($1, 'w', 1)"
    rest = "select lease_until - last_heartbeat from noetl.queue"
    async with session(database) as own:
        queue_id = await put_job(own, status="leased", worker_id="w", attempts=1)
        assert await own.fetchval(beat, queue_id) is True
        assert await own.fetchval(rest) == timedelta(seconds=60)
        await own.execute("update noetl.queue set status = 'queued', attempts = 0")
        await own.execute("select noetl.lease_jobs('w', 1, 900)")
        for call in (beat, beat, "select noetl.heartbeat_job($1, 'w', 1, null)"):
            assert await own.fetchval(call, queue_id) is True
            assert await own.fetchval(rest) == timedelta(seconds=900)
        await own.execute("select noetl.heartbeat_job($1, 'w', 1, 300)", queue_id)
        await own.execute("update noetl.queue set lease_until = clock_timestamp(), last_heartbeat = null")
        assert await own.fetchval(beat, queue_id) is True
        assert await own.fetchval(rest) == timedelta(seconds=300)


async def test_an_answer_without_the_lease_changes_nothing(database: Database) -> None:
    """Another worker, another attempt or no worker gets false; the lease stays."""
    calls = (
        "heartbeat_job($1, $2, $3)",
        "complete_job($1, $2, $3, '1')",
        """fail_job($1, $2, $3, '{"message": "m"}')""",
    )
    others = (("other", 1), ("w", 2), ("w", 0), ("w", None), (None, 1), ("w", -1))
    async with session(database) as own:
        queue_id = await put_job(own)
        await lease(own)
        before = await own.fetch("select * from noetl.queue")
        answers = {
            (call, *other): await own.fetchval(f"select noetl.{call}", queue_id, *other)
            for call in calls
            for other in others
        }
        assert [answer for answer in answers.items() if answer[1] is not False] == []
        assert await own.fetch("select * from noetl.queue") == before
        assert await own.fetchval("select count(*) from noetl.event") == 1
        assert await own.fetchval("select noetl.complete_job(1, 'w', 1)") is False  # its history may be deleted
        assert await own.fetchval("select noetl.heartbeat_job(1, 'w', 1)") is False


async def test_a_worker_that_lost_its_lease_gets_false(database: Database) -> None:
    """Its heartbeat and late answers write no event; those of the new holder count, also under the same name.

    The new lease has its own length. An expired lease alone repeats no work: its answer counts until the next one.
    """
    fail = """select noetl.fail_job($1, $2, 1, '{"message": "m"}')"""
    async with session(database) as own:
        queue_id = await put_job(own)
        await own.execute("select noetl.lease_jobs('zombie', 1, 900)")
        await expire(own)
        assert await own.fetchval("select noetl.complete_job($1, 'zombie', 1, '1')", queue_id) is False
        for attempt, holder in ((2, "zombie"), (3, "second")):
            assert await lease(own, holder, 1, 30) == [("a", attempt)]
            assert await own.fetchval("select noetl.heartbeat_job($1, 'zombie', 1)", queue_id) is False
            assert await own.fetchval("select noetl.complete_job($1, 'zombie', 1, '1')", queue_id) is False
            assert await own.fetchval(fail, queue_id, "zombie") is False
            assert await own.fetchval("select noetl.heartbeat_job($1, $2, $3)", queue_id, holder, attempt) is True
            length = await own.fetchval("select lease_until - last_heartbeat from noetl.queue")
            assert length == timedelta(seconds=30)
            if holder == "zombie":
                await expire(own)
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 hour'")
        assert await own.fetchval("select noetl.complete_job($1, 'second', 3, '2')", queue_id) is True
        assert await own.fetchval("select noetl.complete_job($1, 'zombie', 1, '1')", queue_id) is False
        assert await own.fetchval("select status from noetl.queue") == "done"
        completed = await own.fetch("select worker_id, result from noetl.event where event_type = 'action_completed'")
    assert [tuple(row) for row in completed] == [("second", 2)]


@pytest.mark.parametrize(
    "change, status",
    [
        ("attempts = 1", "leased"),
        ("attempts = 2", "lost"),
        ("worker_id = 'other'", "lost"),
        ("stop = true", "stopped"),
        ("status = 'done'", "completed"),
        ("status = 'cancelled'", "lost"),
    ],
)
async def test_a_call_that_shall_count_only_once_ends_the_lease_or_raises(
    database: Database, change: str, status: str
) -> None:
    """Without the lease nothing of its transaction is written. `attempt_status` says afterwards what became of it."""
    async with session(database) as own:
        queue_id = await put_job(own)
        await lease(own)
        await own.execute("create table public.charge (n int)")
        await own.execute(f"update noetl.queue set {change}")
        assert await own.fetchval("select noetl.attempt_status($1, 'w', 1)", queue_id) == status
        charge = f"insert into public.charge values (1); select {ONCE.replace('$1', str(queue_id))}"
        if status == "leased":
            await own.execute(charge)
        else:
            async with refused("NB409", f"the lease is {status}"):
                await own.execute(charge)
        assert await own.fetchval("select count(*) from public.charge") == (status == "leased")
        async with refused("NB409", "only_once wrote nothing"):
            await own.fetchval(f"select {ONCE}", queue_id)
        if status == "leased":
            assert await own.fetchval("select noetl.attempt_status($1, 'w', 1)", queue_id) == "completed"


async def test_only_once_needs_a_read_committed_transaction(database: Database) -> None:
    """The lock of the lease and the look at it need two snapshots."""
    async with session(database) as own:
        queue_id = await put_job(own)
        await lease(own)
        async with refused("NB409", "in a repeatable read transaction"):
            await own.execute(f"begin isolation level repeatable read; select {ONCE.replace('$1', str(queue_id))}")


async def test_the_status_of_an_attempt_waits_for_its_transaction(database: Database) -> None:
    """A COMMIT without a reply may still be under way, and the answer is final."""
    async with session(database) as own, session(database) as other:
        queue_id = await put_job(own)
        await lease(own)
        await own.execute("begin")
        await own.fetchval(f"select {ONCE}", queue_id)
        asked = asyncio.create_task(other.fetchval("select noetl.attempt_status($1, 'w', 1)", queue_id))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await value(database, "select exists (select from pg_locks where not granted)"):
                pass
        await own.execute("commit")
        assert await asked == "completed"
