"""After a slow scan a session leases from a mark for a while, and loses no job."""

from __future__ import annotations

from typing import Any

from tests.postgres import Database
from tests.sessions import Session, put_job, session

# A scan that seems to take a second.
SLOW_SCAN = "select cardinality(noetl.choose_jobs(10, $1, '{default}', clock_timestamp() - interval '1 second'))"
LATER = "select set_config('noetl.lease_mark', concat_ws(' ', m[1], m[2]::float8 - 60, m[3], m[4]), false) from mark"
MARK = "with mark as (select string_to_array(current_setting('noetl.lease_mark', true), ' ') as m) "


async def put_job_ready(
    own: Session[Any], node: str, *, seconds_ago: float, kind: str = "python", priority: int = 0
) -> None:
    """Queue a job that has been ready for `seconds_ago`."""
    queue_id = await put_job(own, node, node_type=kind, priority=priority)
    late = "update noetl.queue set available_at = clock_timestamp() - make_interval(secs => $1) where queue_id = $2"
    await own.execute(late, seconds_ago, queue_id)


async def leased(own: Session[Any], types: list[str] | None = None) -> list[str]:
    """Lease all available jobs and return their nodes."""
    rows = await own.fetch("select node_name from noetl.lease_jobs('w', 10, 60, $1)", types)
    return [row["node_name"] for row in rows]


async def test_after_a_slow_scan_the_next_scans_start_at_the_mark(database: Database) -> None:
    """New jobs are found at once, jobs with an old time when the mark expires, after twenty seconds.

    It starts three seconds before the scan, for transactions that have not committed.
    """
    async with session(database) as own:
        assert await own.fetchval(SLOW_SCAN, None) == 0
        assert round(await own.fetchval(MARK + "select m[2]::float8 - m[3]::float8 from mark")) == 23
        await put_job_ready(own, "new", seconds_ago=0)
        await put_job_ready(own, "old", seconds_ago=60)
        assert await leased(own) == ["new"]
        assert await leased(own) == []
        await own.execute(MARK + LATER)
        assert await leased(own) == ["old"]


async def test_a_requeued_job_is_found_past_the_mark(database: Database) -> None:
    """It is available from the moment of the requeue."""
    async with session(database) as own:
        await put_job_ready(own, "lost", seconds_ago=3600)
        assert await leased(own) == ["lost"]
        await own.execute(SLOW_SCAN, None)
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 second'")
        assert await own.fetchval("select requeued from noetl.reap(9, 5)") == 1
        assert await leased(own) == ["lost"]


async def test_the_mark_holds_for_the_requested_types_only(database: Database) -> None:
    """Scans for other types start at the first job."""
    async with session(database) as own:
        await own.execute(SLOW_SCAN, ["http"])
        await put_job_ready(own, "a", seconds_ago=60, kind="http")
        await put_job_ready(own, "b", seconds_ago=60)
        assert await leased(own, ["http"]) == []
        assert await leased(own, ["python"]) == ["b"]
        assert await leased(own) == ["a"]


async def test_the_mark_belongs_to_one_session(database: Database) -> None:
    """Another session has no mark."""
    async with session(database) as own, session(database) as other:
        await own.execute(SLOW_SCAN, None)
        await put_job_ready(own, "old", seconds_ago=60)
        assert await leased(own) == []
        assert await leased(other) == ["old"]


async def test_after_a_slow_scan_with_jobs_left_the_mark_is_at_the_first_job(
    database: Database,
) -> None:
    """It holds for that priority and higher ones. Jobs of lower priority follow when no others are left."""
    async with session(database) as own:
        for number in range(12):
            await put_job_ready(own, f"of{number}", seconds_ago=100 - number, priority=5)
        await put_job_ready(own, "low", seconds_ago=300, priority=1)
        await own.execute(SLOW_SCAN, None)
        await put_job_ready(own, "late", seconds_ago=200, priority=5)
        await put_job_ready(own, "high", seconds_ago=50, priority=9)
        assert await leased(own) == ["high", *(f"of{number}" for number in range(9))]
        assert await leased(own) == ["late", "of9", "of10", "of11", "low"]
        assert await leased(own) == []


async def test_a_batch_is_filled_with_the_oldest_jobs_of_lower_priority(database: Database) -> None:
    """The newest of them alone are past the mark. No job is leased twice."""
    async with session(database) as own:
        for number in range(12):
            await put_job_ready(own, f"of{number}", seconds_ago=100 - number, priority=5)
        for number in range(10):
            await put_job_ready(own, f"old{number}", seconds_ago=300 - number, priority=1)
            await put_job_ready(own, f"new{number}", seconds_ago=50 - number, priority=1)
        await own.execute(SLOW_SCAN, None)
        assert await leased(own) == [f"of{number}" for number in range(10)]
        assert await leased(own) == ["of10", "of11", *(f"old{number}" for number in range(8))]


async def test_a_fast_scan_sets_no_mark(database: Database) -> None:
    """At least one of twenty scans must be fast: any may be interrupted."""
    async with session(database) as own:
        await put_job_ready(own, "a", seconds_ago=60)
        marks = []
        for _ in range(20):
            await own.execute("select noetl.choose_jobs(10, null, '{default}', clock_timestamp())")
            marks.append(await own.fetchval("select current_setting('noetl.lease_mark', true)"))
            await own.execute("select set_config('noetl.lease_mark', '', false)")
    assert not all(marks)


async def test_after_a_slow_call_the_next_one_measures_its_scan(database: Database) -> None:
    """A call that was slow for another reason sets no mark. At least one of twenty scans must be fast."""
    async with session(database) as own:
        marks = []
        for number in range(20):
            await put_job_ready(own, f"of{number}", seconds_ago=60)
            await own.execute("select set_config('noetl.lease_mark', 'slow', false)")
            assert await leased(own) == [f"of{number}"]
            marks.append(await own.fetchval("select current_setting('noetl.lease_mark', true)"))
    assert "" in marks
    assert "slow" not in marks
