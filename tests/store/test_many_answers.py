"""`complete_jobs` answers many jobs at once, each like a single answer."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.postgres import Database
from tests.sessions import Session, blocked, put_job, refused, session

COMPLETE = "select queue_id, yours from noetl.complete_jobs('w', $1, $2, $3)"
COMPLETED = (
    "select node_name, result, meta, worker_id from noetl.event where event_type = 'action_completed' order by 1"
)

FIVE_THOUSAND = """
    insert into noetl.queue (execution_id, node_id, node_name, node_type, action, event_id, status)
    select n, 'n', 'n', 'python', repeat('x', 100), 1, 'done' from generate_series(1, 5000) n"""


async def leased(own: Session[Any], *nodes: str) -> list[int]:
    """Lease jobs of these nodes as worker `w`, in this order."""
    jobs = [await put_job(own, node) for node in nodes]
    await own.execute("select noetl.lease_jobs('w', 1000)")
    return jobs


async def complete(own: Session[Any], *answers: tuple[int, int | None, Any]) -> list[tuple[int, bool]]:
    """Complete all (job, attempt, result) in one call."""
    columns = [list(column) for column in zip(*answers, strict=True)]
    return [tuple(row) for row in await own.fetch(COMPLETE, *columns)]


async def sequential_reads(own: Session[Any]) -> int:
    """Return how many rows the sessions have read without an index."""
    await own.execute("select pg_stat_force_next_flush()")
    return int(await own.fetchval("select sum(seq_tup_read) from pg_stat_user_tables where relname like 'queue%'"))


async def test_each_result_goes_to_its_job(database: Database) -> None:
    """For ids in any order, a null result, and no results."""
    async with session(database) as own:
        a, b, c, d = await leased(own, "a", "b", "c", "d")
        assert await complete(own, (c, 1, {"of": "c"}), (a, 1, {"of": "a"}), (b, 1, None)) == [
            (c, True),
            (a, True),
            (b, True),
        ]
        assert await own.fetchval("select yours from noetl.complete_jobs('w', $1, '{1}')", [d])
        events = [tuple(row) for row in await own.fetch(COMPLETED)]
        assert await own.fetchval("select count(*) from noetl.queue where status = 'done' and lease_until is null") == 4
    assert events == [
        ("a", {"of": "a"}, {"queue_id": a, "attempt": 1}, "w"),
        ("b", None, {"queue_id": b, "attempt": 1}, "w"),
        ("c", {"of": "c"}, {"queue_id": c, "attempt": 1}, "w"),
        ("d", None, {"queue_id": d, "attempt": 1}, "w"),
    ]


async def test_an_answer_that_does_not_count_leaves_the_others(database: Database) -> None:
    """Another attempt, no attempt, another worker's job, an unknown job."""
    async with session(database) as own:
        a, b, c = await leased(own, "a", "b", "c")
        foreign = await put_job(own, "d")
        await own.execute("select noetl.lease_jobs('another')")
        stale = await own.fetchval("select last_value from noetl.stale_answer_seq")
        answers = [(a, 2, 1), (b, 1, 2), (c, None, 3), (foreign, 1, 4), (5, 1, 5)]
        assert await complete(own, *answers) == [(a, False), (b, True), (c, False), (foreign, False), (5, False)]
        assert await own.fetchval("select last_value from noetl.stale_answer_seq") == stale + 3 + (stale != 1)
        assert [row["node_name"] for row in await own.fetch(COMPLETED)] == ["b"]
        states = await own.fetch("select node_name, status from noetl.queue order by node_name")
    assert [tuple(row) for row in states] == [("a", "leased"), ("b", "done"), ("c", "leased"), ("d", "leased")]


async def test_repeated_answers_are_true_and_change_nothing(database: Database) -> None:
    """In another call and in the same call."""
    async with session(database) as own:
        a, b = await leased(own, "a", "b")
        assert await complete(own, (a, 1, 1), (a, 1, 2)) == [(a, True), (a, True)]
        assert await complete(own, (a, 1, 3), (b, 1, 4)) == [(a, True), (b, True)]
        assert [row["result"] for row in await own.fetch(COMPLETED)] == [1, 4]


async def test_two_equal_answers_at_once_are_both_true(database: Database) -> None:
    """The second waits for the commit of the first; one event is written."""
    async with session(database) as first, session(database) as second:
        [a] = await leased(first, "a")
        async with first.transaction():
            assert await complete(first, (a, 1, 1)) == [(a, True)]
            again = asyncio.create_task(complete(second, (a, 1, 1)))
            await blocked(first)
        assert await again == [(a, True)]
        assert len(await first.fetch(COMPLETED)) == 1


async def test_batches_in_opposite_orders_do_not_deadlock(database: Database) -> None:
    """Rows are locked in one order, whatever the order of the call."""
    async with session(database) as first, session(database) as second, session(database) as third:
        a, b, c = await leased(first, "a", "b", "c")
        async with third.transaction():
            await third.execute("select from noetl.queue where queue_id = $1 for update", b)
            one = asyncio.create_task(complete(first, (a, 1, 1), (b, 1, 1), (c, 1, 1)))
            await blocked(third)
            two = asyncio.create_task(complete(second, (c, 1, 1), (b, 1, 1), (a, 1, 1)))
            await blocked(third, sessions=2)
            assert [tuple(row) for row in await third.fetch(COMPLETED)] == []
        assert await one == [(a, True), (b, True), (c, True)]
        assert await two == [(c, True), (b, True), (a, True)]
        assert len(await first.fetch(COMPLETED)) == 3


async def test_a_result_over_the_limit_refuses_the_whole_call(database: Database) -> None:
    """The error names the job. The others can be answered without it."""
    async with session(database) as own:
        a, b = await leased(own, "a", "b")
        async with refused("NB400", f"the result of job {b} takes 2097153 bytes"):
            await complete(own, (a, 1, 1), (b, 1, "x" * 2097151))
        assert await own.fetch(COMPLETED) == []
        warnings: list[str] = []
        own.add_log_listener(lambda _own, message: warnings.append(message.message))
        assert await complete(own, (a, 1, "x" * 262143)) == [(a, True)]
    assert warnings == [f"the result of job {a} takes 262145 bytes; the limit is 2097152"]


async def test_arrays_of_different_lengths_are_refused(database: Database) -> None:
    """NB400, with the length of each. Without answers there are no rows."""
    async with session(database) as own:
        for arrays in ("'{1,2}', '{1}', null", "'{1}', '{1}', '{}'", "'{1}', null, null", "'{}', '{1}', null"):
            async with refused("NB400", "must be equally many"):
                await own.fetch(f"select noetl.complete_jobs('w', {arrays})")
        for arrays in ("'{}', '{}'", "null, null"):
            assert await own.fetch(f"select noetl.complete_jobs('w', {arrays})") == []


async def test_calls_of_workers_use_the_index_after_the_table_grew(database: Database) -> None:
    """The session keeps plans from when a sequential scan was cheap."""
    on_a_lease = ("heartbeat_job($1, 'w', 1)", "wait_for_child($1, 'w', 1, 5)")
    ends = (
        "complete_job($1::bigint, 'w', 1)",
        "complete_and_lease($1::bigint, 'w', 1)",
        "complete_jobs_and_lease('w', array[$1::bigint], '{1}')",
    )
    async with session(database) as own:
        await put_job(own, "early", status="done")
        await own.execute("analyze noetl.queue")
        for number in range(7):  # Postgres keeps the plan from the sixth call on
            await complete(own, *[(other, 1, None) for other in range(100)])
            await leased(own, f"first{number}")
            for function in on_a_lease:
                assert not await own.fetchval(f"select noetl.{function}", -number)
            for function in ends:
                await own.fetch(f"select from noetl.{function}", -number)
        await own.execute(FIVE_THOUSAND)
        before = await sequential_reads(own)
        [job] = await leased(own, "last")
        for function in on_a_lease:
            assert await own.fetchval(f"select noetl.{function}", job)
        assert await complete(own, (job, 1, None)) == [(job, True)]
        for function in ends:
            [job] = await leased(own, function[:16])
            await own.fetch(f"select from noetl.{function}", job)
        assert await own.fetchval("select count(*) from noetl.queue where status = 'leased'") == 7
        assert await sequential_reads(own) == before
