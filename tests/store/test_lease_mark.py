"""Where an old snapshot makes leasing dear, a session starts later for a while, and loses no job."""

from __future__ import annotations

from typing import Any

from tests.postgres import Database
from tests.sessions import Session, put_job, session

# a look that seems to have taken a second
DEAR = "select cardinality(noetl.choose_jobs(10, $1, clock_timestamp() - interval '1 second'))"
LATER = "select set_config('noetl.lease_mark', concat_ws(' ', m[1], m[2]::float8 - 60, m[3], m[4]), false) from mark"
MARK = "with mark as (select string_to_array(current_setting('noetl.lease_mark', true), ' ') as m) "


async def put(own: Session[Any], node: str, *, seconds_ago: float, kind: str = "python", priority: int = 0) -> None:
    """A job that has been ready for so long."""
    queue_id = await put_job(own, node, node_type=kind, priority=priority)
    late = "update noetl.queue set available_at = clock_timestamp() - make_interval(secs => $1) where queue_id = $2"
    await own.execute(late, seconds_ago, queue_id)


async def leased(own: Session[Any], types: list[str] | None = None) -> list[str]:
    """Lease all that can be had; the nodes."""
    rows = await own.fetch("select node_name from noetl.lease_jobs('w', 10, 60, $1)", types)
    return [row["node_name"] for row in rows]


async def test_after_a_dear_look_the_next_ones_start_later_for_a_while(database: Database) -> None:
    """What is new is found at once, what has an old time when the while is over."""
    async with session(database) as own:
        assert await own.fetchval(DEAR, None) == 0
        await put(own, "new", seconds_ago=0)
        await put(own, "old", seconds_ago=60)
        assert await leased(own) == ["new"]
        assert await leased(own) == []
        await own.execute(MARK + LATER)
        assert await leased(own) == ["old"]


async def test_a_job_whose_lease_was_lost_is_found_at_once(database: Database) -> None:
    """It is ready from then on, so no mark is past it."""
    async with session(database) as own:
        await put(own, "lost", seconds_ago=3600)
        assert await leased(own) == ["lost"]
        await own.execute(DEAR, None)
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 second'")
        assert await own.fetchval("select requeued from noetl.reap(9, 5)") == 1
        assert await leased(own) == ["lost"]


async def test_the_while_lasts_twenty_seconds_at_most(database: Database) -> None:
    """And begins three seconds before the look: transactions that queue jobs commit by then."""
    async with session(database) as own:
        await own.execute(DEAR, None)
        look = MARK + "select m[2]::float8 - m[3]::float8 from mark"
        assert round(await own.fetchval(look)) == 23


async def test_other_types_are_looked_for_from_the_beginning(database: Database) -> None:
    """The mark tells of the types that were asked for, and of no others."""
    async with session(database) as own:
        await own.execute(DEAR, ["http"])
        await put(own, "a", seconds_ago=60, kind="http")
        await put(own, "b", seconds_ago=60)
        assert await leased(own, ["http"]) == []
        assert await leased(own, ["python"]) == ["b"]
        assert await leased(own) == ["a"]


async def test_another_session_looks_for_itself(database: Database) -> None:
    """It knows of no mark."""
    async with session(database) as own, session(database) as other:
        await own.execute(DEAR, None)
        await put(own, "old", seconds_ago=60)
        assert await leased(own) == []
        assert await leased(other) == ["old"]


async def test_after_a_dear_look_that_left_something_the_next_ones_start_at_what_it_found_first(
    database: Database,
) -> None:
    """Those of its priority and above; of lower ones, as ever, when there are no others."""
    async with session(database) as own:
        for number in range(12):
            await put(own, f"of{number}", seconds_ago=100 - number, priority=5)
        await put(own, "low", seconds_ago=300, priority=1)
        await own.execute(DEAR, None)
        await put(own, "late", seconds_ago=200, priority=5)
        await put(own, "high", seconds_ago=50, priority=9)
        assert await leased(own) == ["high", *(f"of{number}" for number in range(9))]
        assert await leased(own) == ["late", "of9", "of10", "of11", "low"]
        assert await leased(own) == []


async def test_where_those_of_its_priority_do_not_suffice_the_oldest_of_lower_ones_fill_up(database: Database) -> None:
    """Not the newest of them, which alone are past the mark; and none that was found before takes a place twice."""
    async with session(database) as own:
        for number in range(12):
            await put(own, f"of{number}", seconds_ago=100 - number, priority=5)
        for number in range(10):
            await put(own, f"old{number}", seconds_ago=300 - number, priority=1)
            await put(own, f"new{number}", seconds_ago=50 - number, priority=1)
        await own.execute(DEAR, None)
        assert await leased(own) == [f"of{number}" for number in range(10)]
        assert await leased(own) == ["of10", "of11", *(f"old{number}" for number in range(8))]


async def test_a_cheap_look_sets_no_mark(database: Database) -> None:
    """As nearly all are; the quickest of some, since any may be interrupted."""
    async with session(database) as own:
        await put(own, "a", seconds_ago=60)
        marks = []
        for _ in range(20):
            await own.execute("select noetl.choose_jobs(10, null, clock_timestamp())")
            marks.append(await own.fetchval("select current_setting('noetl.lease_mark', true)"))
            await own.execute("select set_config('noetl.lease_mark', '', false)")
    assert not all(marks)
