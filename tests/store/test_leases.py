"""Leases: who is given which job, for how long, and how the fence keeps a lost worker out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.postgres import Database
from tests.sessions import Session, put_job, refused, session


async def lease(own: Session[Any], *arguments: Any) -> list[tuple[str, int]]:
    """Lease as `w` unless told otherwise; node names and attempts."""
    given = arguments or ("w",)
    places = ", ".join(f"${place}" for place in range(1, len(given) + 1))
    return [
        (row["node_name"], row["attempts"])
        for row in await own.fetch(f"select * from noetl.lease_jobs({places})", *given)
    ]


async def expire(own: Session[Any]) -> None:
    """Let all leases run out and the reaper see it."""
    await own.execute(
        "update noetl.queue set lease_until = clock_timestamp() - interval '1 second' where status = 'leased'"
    )
    await own.execute("select noetl.reap(100, 5)")


async def test_the_highest_priority_goes_first_and_then_the_oldest(database: Database) -> None:
    """Within a priority by the time since when a job is available."""
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    async with session(database) as own:
        await put_job(own, "low", priority=1, available_at=early)
        await put_job(own, "late", available_at=late)
        await put_job(own, "early", available_at=early)
        await put_job(own, "high", priority=9, available_at=late)
        assert await lease(own) == [("high", 1)]
        assert await lease(own, "w", 10) == [("early", 1), ("late", 1), ("low", 1)]


async def test_only_jobs_of_the_asked_types_are_leased(database: Database) -> None:
    """None asked: all types; an empty list: none."""
    async with session(database) as own:
        for kind in ("python", "http", "duckdb"):
            await put_job(own, kind, node_type=kind)
        assert await lease(own, "w", 10, 60, []) == []
        assert await lease(own, "w", 10, 60, ["http", "nothing"]) == [("http", 1)]
        assert len(await lease(own, "w", 10, 60, None)) == 2


@pytest.mark.parametrize("status", ["leased", "done", "failed", "dead", "cancelled"])
async def test_only_waiting_jobs_are_leased(database: Database, status: str) -> None:
    """Queued ones and those to be retried."""
    async with session(database) as own:
        await put_job(own, "not", status=status)
        await put_job(own, "queued")
        await put_job(own, "retry", status="retry")
        assert sorted(await lease(own, "w", 10)) == [("queued", 1), ("retry", 1)]


async def test_a_job_is_not_leased_before_its_time(database: Database) -> None:
    """A retry waits for the end of its delay, by the clock of the database."""
    async with session(database) as own:
        await put_job(own, available_at=datetime.now(UTC) + timedelta(hours=1))
        assert await lease(own) == []


async def test_two_sessions_lease_different_jobs(database: Database) -> None:
    """What one is leasing the other skips, without waiting for its commit."""
    async with session(database) as first, session(database) as second:
        for node in "abc":
            await put_job(first, node)
        async with first.transaction():
            assert await lease(first, "first", 2) == [("a", 1), ("b", 1)]
            assert await lease(second, "second", 2) == [("c", 1)]
            assert await lease(second, "second", 2) == []


async def test_a_lease_that_is_rolled_back_never_was(database: Database) -> None:
    """The next one is attempt 1 again, and there is one action_started."""
    async with session(database) as own:
        await put_job(own)
        transaction = own.transaction()
        await transaction.start()
        await lease(own)
        await transaction.rollback()
        assert await lease(own) == [("a", 1)]
        assert await own.fetchval("select count(*) from noetl.event") == 1


async def test_a_lease_says_until_when_and_to_whom(database: Database) -> None:
    """By the database's clock, and the row that comes back is the row that stands."""
    async with session(database) as own:
        await put_job(own)
        row = await own.fetchrow("select * from noetl.lease_jobs('w', 1, 90)")
        assert row == await own.fetchrow("select * from noetl.queue")
        assert row is not None
        assert (row["status"], row["worker_id"], row["attempts"]) == ("leased", "w", 1)
        assert row["lease_until"] - row["last_heartbeat"] == timedelta(seconds=90)
        assert row["first_leased_at"] == row["last_heartbeat"]


async def test_a_lease_is_an_event(database: Database) -> None:
    """`action_started`, caused by the job's step_started and later than it, whatever the clocks say."""
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


@pytest.mark.parametrize(
    "call",
    [
        "lease_jobs('w', 0)",
        "lease_jobs('w', -1)",
        "lease_jobs('w', null)",
        "lease_jobs('w', 1, 0)",
        "lease_jobs('w', 1, null)",
        "lease_jobs('')",
        "lease_jobs(null)",
        "heartbeat_job(1, 'w', 1, 0)",
        "heartbeat_job(1, 'w', 1, -5)",
    ],
)
async def test_arguments_that_make_no_sense_are_refused(database: Database, call: str) -> None:
    """NB400, and nothing is leased or prolonged."""
    async with session(database) as own:
        await put_job(own)
        async with refused("NB400"):
            await own.execute(f"select noetl.{call}")
        assert await own.fetchval("select status from noetl.queue") == "queued"


@pytest.mark.parametrize("call", ["lease_jobs('w', 'NaN'::float8::int)", "complete_job(1, 'w', 1, 'NaN')"])
async def test_what_is_no_number_is_refused_by_its_type(database: Database, call: str) -> None:
    """Neither an integer nor JSON can be NaN: the database refuses before we are asked."""
    async with session(database) as own, refused("22", "out of range|invalid input syntax"):
        await own.execute(f"select noetl.{call}")


async def test_a_heartbeat_prolongs_the_lease(database: Database) -> None:
    """From now on, not from the old end; to a shorter one too."""
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


@pytest.mark.parametrize("lease", ["lease_jobs", "lease_singly"])
@pytest.mark.parametrize("length", ["", ", null"])
async def test_a_heartbeat_without_a_length_keeps_the_lease_s(database: Database, lease: str, length: str) -> None:
    """The one that it was leased for, or that the last heartbeat gave it, whatever others made of the times."""
    beat = f"select noetl.heartbeat_job($1, 'w', 1{length})"
    rest = "select lease_until - last_heartbeat from noetl.queue"
    async with session(database) as own:
        queue_id = await put_job(own)
        await own.execute(f"select noetl.{lease}('w', 1, 900)")
        for _ in range(2):
            assert await own.fetchval(beat, queue_id) is True
            assert await own.fetchval(rest) == timedelta(seconds=900)
        await own.execute("select noetl.heartbeat_job($1, 'w', 1, 300)", queue_id)
        await own.execute("update noetl.queue set lease_until = clock_timestamp(), last_heartbeat = null")
        assert await own.fetchval(beat, queue_id) is True
        assert await own.fetchval(rest) == timedelta(seconds=300)


async def test_each_lease_has_a_length_of_its_own(database: Database) -> None:
    """A job that is leased anew does not keep the length of the lease that was lost."""
    async with session(database) as own:
        queue_id = await put_job(own)
        await own.execute("select noetl.lease_jobs('w', 1, 900)")
        await expire(own)
        await own.execute("select noetl.lease_jobs('w', 1, 30)")
        assert await own.fetchval("select noetl.heartbeat_job($1, 'w', 2)", queue_id) is True
        assert await own.fetchval("select lease_until - last_heartbeat from noetl.queue") == timedelta(seconds=30)


async def test_a_lease_that_others_took_is_prolonged_by_a_minute(database: Database) -> None:
    """Its row says no length: a NoETL server leases for as long."""
    async with session(database) as own:
        queue_id = await put_job(own)
        await own.execute("update noetl.queue set status = 'leased', worker_id = 'w', attempts = 1")
        assert await own.fetchval("select noetl.heartbeat_job($1, 'w', 1)", queue_id) is True
        assert await own.fetchval("select lease_until - last_heartbeat from noetl.queue") == timedelta(seconds=60)


async def test_an_answer_after_the_end_of_the_lease_counts_until_it_is_taken_over(database: Database) -> None:
    """The time alone takes nothing from a worker: what it has done is not done again."""
    async with session(database) as own:
        queue_id = await put_job(own)
        await lease(own)
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 hour'")
        assert await own.fetchval("select noetl.complete_job($1, 'w', 1, '1')", queue_id) is True
        assert await own.fetchval("select status from noetl.queue") == "done"


@pytest.mark.parametrize(
    "answer",
    [
        "heartbeat_job($1, $2, $3)",
        "complete_job($1, $2, $3, '1')",
        'fail_job($1, $2, $3, \'{"message": "m"}\')',
    ],
)
@pytest.mark.parametrize("worker, attempt", [("other", 1), ("w", 2), ("w", 0), ("w", None), (None, 1), ("w", -1)])
async def test_an_answer_that_does_not_hold_the_lease_changes_nothing(
    database: Database, answer: str, worker: str | None, attempt: int | None
) -> None:
    """Another worker's, another attempt's, nobody's: false, and the lease stands."""
    async with session(database) as own:
        queue_id = await put_job(own)
        await lease(own)
        before = await own.fetch("select * from noetl.queue")
        assert await own.fetchval(f"select noetl.{answer}", queue_id, worker, attempt) is False
        assert await own.fetch("select * from noetl.queue") == before
        assert await own.fetchval("select count(*) from noetl.event") == 1


async def test_a_worker_whose_lease_was_taken_over_is_told_so(database: Database) -> None:
    """The zombie's heartbeat and late answers are false and leave no event; the new holder's count."""
    async with session(database) as own:
        queue_id = await put_job(own)
        assert await lease(own, "zombie") == [("a", 1)]
        await expire(own)
        assert await own.fetchval("select noetl.complete_job($1, 'zombie', 1, '1')", queue_id) is False
        assert await lease(own, "second") == [("a", 2)]
        assert await own.fetchval("select noetl.heartbeat_job($1, 'zombie', 1)", queue_id) is False
        assert await own.fetchval("select noetl.complete_job($1, 'zombie', 1, '1')", queue_id) is False
        assert await own.fetchval("""select noetl.fail_job($1, 'zombie', 1, '{"message": "m"}')""", queue_id) is False
        assert await own.fetchval("select noetl.complete_job($1, 'second', 2, '2')", queue_id) is True
        assert await own.fetchval("select noetl.complete_job($1, 'zombie', 1, '1')", queue_id) is False
        completed = await own.fetch("select worker_id, result from noetl.event where event_type = 'action_completed'")
    assert [tuple(row) for row in completed] == [("second", 2)]


async def test_the_same_worker_that_leased_its_lost_job_again_answers_for_the_new_attempt(database: Database) -> None:
    """The name is the same, the attempt is not: that is what the fence is for."""
    async with session(database) as own:
        queue_id = await put_job(own)
        await lease(own)
        await expire(own)
        assert await lease(own) == [("a", 2)]
        assert await own.fetchval("select noetl.complete_job($1, 'w', 1, '1')", queue_id) is False
        assert await own.fetchval("select noetl.complete_job($1, 'w', 2, '2')", queue_id) is True
