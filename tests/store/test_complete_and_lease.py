"""One call ends jobs and leases the next ones: its answers, rows and mail are those of the two calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.postgres import Database
from tests.sessions import PATIENCE_SECONDS, Session, blocked, listen, put_job, refused, session

ONE = "select * from noetl.complete_and_lease($1, $2, $3, $4, 90, $5)"
MANY = "select * from noetl.complete_jobs_and_lease($2, array[$1::bigint], array[$3::int], array[$4::jsonb], 1, 90, $5)"
COMPLETE = "select noetl.complete_job($1, $2, $3, $4)"
LEASE = "select * from noetl.lease_jobs($1, 1, 90, $2)"
FIELDS = ["queue_id", "execution_id", "node_id", "node_name", "node_type", "action", "context"]
FIELDS += ["priority", "timeout_seconds"]
EVENTS = """
select event_type, node_name, node_type, status, result, meta - 'queue_id' as meta, worker_id, parent_event_id,
  catalog_id, duration is null as no_duration, exists (
    select from noetl.inbox i where i.execution_id = e.execution_id and i.event_id = e.event_id
  ) as is_mail
from noetl.event e
order by created_at, event_id"""
JOBS = """
select node_name, status, attempts, worker_id, lease_seconds, lease_until - last_heartbeat as length,
  first_leased_at = last_heartbeat as is_first, updated_at > last_heartbeat + interval '1 h' as is_ahead, stop, draining
from noetl.queue
order by queue_id"""
THROTTLED = """
select noetl.throttle_jobs(array_agg(execution_id), array_agg(node_id), array_agg('api'::text),
  array_agg('k'::text), array_agg($1::int), array_agg(null::float8), array_agg(null::int))
from noetl.queue"""

DAY = timedelta(days=1)

Answer = tuple[bool, dict[str, Any] | None, int | None]
Loop = Callable[..., Coroutine[Any, Any, Answer]]


def of_job(row: Any, attempt: str) -> tuple[dict[str, Any] | None, int | None]:
    """Return the fields and the attempt of a leased job."""
    return ({name: row[name] for name in FIELDS}, row[attempt]) if row and row["queue_id"] else (None, None)


async def by_two_calls(
    own: Session[Any], job: int, *, worker: str = "w", attempt: int | None = 1, result: Any = 1, types: Any = None
) -> Answer:
    """Complete, then lease."""
    yours = await own.fetchval(COMPLETE, job, worker, attempt, result)
    return bool(yours), *of_job(await own.fetchrow(LEASE, worker, types), "attempts")


async def by_one_call(
    own: Session[Any], job: int, *, worker: str = "w", attempt: int | None = 1, result: Any = 1, types: Any = None
) -> Answer:
    """Complete one job and lease another."""
    row = await own.fetchrow(ONE, job, worker, attempt, result, types)
    assert row is not None
    return row["yours"], *of_job(row, "attempts")


async def by_arrays(
    own: Session[Any], job: int, *, worker: str = "w", attempt: int | None = 1, result: Any = 1, types: Any = None
) -> Answer:
    """Complete a list of one job and lease another."""
    answer, *leased = await own.fetch(MANY, job, worker, attempt, result, types)
    assert (answer["queue_id"], *answer[2:]) == (job, *[None] * 9)
    assert [row["yours"] for row in leased] in ([], [None])
    return answer["yours"], *of_job(leased[0] if leased else None, "attempt")


@pytest.fixture(params=[by_one_call, by_arrays])
def loop(request: pytest.FixtureRequest) -> Loop:
    """Return each of the two functions."""
    call: Loop = request.param
    return call


async def leased(own: Session[Any], *nodes: str, worker: str = "w") -> list[int]:
    """Queue jobs and lease them, as attempt 1."""
    jobs = [await put_job(own, node) for node in nodes]
    await own.execute("select queue_id from noetl.lease_jobs($1, 1000)", worker)
    return jobs


CASES: dict[str, tuple[str, dict[str, Any], bool, bool]] = {
    # what happened to the leased job before, what the worker says of it; is it true, does it end the job
    "it holds the lease": ("select $1::bigint", {"result": {"n": 2}}, True, True),
    "without a result": ("select $1::bigint", {"result": None}, True, True),
    "a lease that ran out, and nobody took": (
        "update noetl.queue set lease_until = clock_timestamp() - interval '1 h' where queue_id = $1", {}, True, True
    ),
    "a late attempt": ("update noetl.queue set attempts = 2 where queue_id = $1", {}, False, False),
    "a later attempt": ("select $1::bigint", {"attempt": 2}, False, False),
    "no attempt": ("select $1::bigint", {"attempt": None}, False, False),
    "another worker's": ("update noetl.queue set worker_id = 'x' where queue_id = $1", {}, False, False),
    "a repeated answer": ("select noetl.complete_job($1, 'w', 1, '1')", {"result": 2}, True, False),
    "another attempt ended it": (
        "update noetl.queue set status = 'done', attempts = 2 where queue_id = $1", {}, False, False
    ),
    "another worker ended it": (
        "update noetl.queue set status = 'done', worker_id = 'x' where queue_id = $1", {}, False, False
    ),
    "failed before": ("""select noetl.fail_job($1, 'w', 1, '{"message": "m"}')""", {}, False, False),
    "queued again": ("update noetl.queue set status = 'retry' where queue_id = $1", {}, False, False),
    "cancelled": ("update noetl.queue set status = 'cancelled' where queue_id = $1", {}, False, False),
    "stopped": ("update noetl.queue set stop = true where queue_id = $1", {}, True, True),
    "draining": ("update noetl.queue set draining = true where queue_id = $1", {}, True, True),
    "an undo that begins again": (
        "update noetl.queue set stop = true, draining = true, node_id = '1:a#1!undo' where queue_id = $1",
        {}, True, True,
    ),
    "the clock has stepped back": (
        "update noetl.queue set updated_at = clock_timestamp() + interval '1 day' where queue_id = $1", {}, True, True
    ),
    "its history is gone": ("delete from noetl.queue where queue_id = $1", {}, False, False),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_each_answer_is_that_of_two_calls(database: Database, loop: Loop, case: str) -> None:
    """The same answer, the same next job, the same rows and mail; each is tried and rolled back."""
    before, said, yours, ends = CASES[case]
    now = datetime.now(UTC)
    async with session(database) as own:
        [job] = await leased(own, "a")
        await put_job(own, "later", available_at=now + DAY, priority=9)
        of_retry = {"status": "retry", "attempts": 1, "first_leased_at": now - DAY, "updated_at": now + DAY}
        given = {"action": '{"x": 1}', "context": {"y": 2}, "timeout_seconds": 3, **of_retry}
        await put_job(own, "b", execution_id=2, event_id=8, **given)
        await own.execute(before, job)
        found = []
        for call in (by_two_calls, loop):
            transaction = own.transaction()
            await transaction.start()
            answer = await call(own, job, **said)
            found.append((answer, await own.fetch(JOBS), await own.fetch(EVENTS)))
            await transaction.rollback()
    assert found[0] == found[1]
    (is_yours, next_job, attempt), _, events = found[1]
    completed = [event["result"] for event in events if event["event_type"] == "action_completed" and event["is_mail"]]
    assert is_yours is yours
    assert next_job is not None
    assert attempt == 2
    assert completed == ([said.get("result", 1)] if ends else [1] if yours else [])
    assert [event["is_mail"] for event in events if event["event_type"] == "action_started"] == [False, False]


async def test_the_jobs_of_a_worker_in_a_loop(database: Database, loop: Loop) -> None:
    """It leases by priority, then age, of the types that it names, until no job is left."""
    async with session(database) as own:
        [job] = await leased(own, "first")
        for node, kind, priority in (("late", "python", 1), ("other", "http", 9), ("early", "python", 5)):
            await put_job(own, node, node_type=kind, priority=priority)
        seen = []
        while True:
            yours, found, _ = await loop(own, job, types=["python"])
            assert yours
            if found is None:
                break
            seen.append(found["node_name"])
            job = found["queue_id"]
        statuses = await own.fetch("select node_name, status from noetl.queue order by 1")
    assert seen == ["early", "late"]
    assert {tuple(row) for row in statuses} == {
        ("early", "done"), ("first", "done"), ("late", "done"), ("other", "queued")
    }  # fmt: skip


async def test_many_answers_and_many_jobs(database: Database) -> None:
    """Answers come first, in the order of the arrays, then jobs, the most urgent first."""
    statement = "select queue_id, yours, node_name, attempt from noetl.complete_jobs_and_lease('w', $1, $2, $3, 2)"
    async with session(database) as own:
        a, b, c = await leased(own, "a", "b", "c")
        low, high = await put_job(own, "low", priority=1), await put_job(own, "high", priority=9)
        await put_job(own, "left", priority=0)
        jobs, attempts = [c, a, b, c, c, 5], [1, 1, 7, 1, 2, 1]
        rows = await own.fetch(statement, jobs, attempts, [3, 1, 2, 4, 6, 5])
        assert [tuple(row) for row in rows] == [
            *((job, job in (a, c) and attempt == 1, None, None) for job, attempt in zip(jobs, attempts, strict=True)),
            (high, None, "high", 1), (low, None, "low", 1),
        ]  # fmt: skip
        results = "select node_name, result from noetl.event where event_type = 'action_completed' order by 1"
        assert [tuple(row) for row in await own.fetch(results)] == [("a", 1), ("c", 3)]
        rows = await own.fetch("select yours, node_name from noetl.complete_jobs_and_lease('w', '{}', '{}')")
        assert [tuple(row) for row in rows] == [(None, "left")]


async def test_what_one_function_refuses_is_refused(database: Database, loop: Loop) -> None:
    """Nothing is ended and nothing is leased; then the worker can fail the job."""
    async with session(database) as own:
        [job] = await leased(own, "a")
        await put_job(own, "b")
        async with refused("NB400", f"the result of job {job} takes 2097153 bytes"):
            await loop(own, job, result="x" * 2097151)
        async with refused("NB400", "lease_jobs needs a worker_id"):
            await loop(own, job, worker="")
        arrays = "complete_jobs_and_lease('w', '{1}', '{1}'"
        for call, message in (
            (f"complete_and_lease({job}, 'w', 1, '1', 0)", "lease_seconds 0 must be 1 or more"),
            (f"complete_and_lease({job}, 'w', 1, '1', null)", "lease_seconds null must be 1 or more"),
            (f"{arrays}, null, 0)", "max_jobs 0 and"), (f"{arrays}, null, 1, 0)", "lease_seconds 0 must"),
            (f"{arrays}, null, null)", "max_jobs null and"), (f"{arrays}, '{{}}')", "equally many"),
            ("complete_jobs_and_lease('w', '{1}', '{1,2}')", "equally many"),
        ):  # fmt: skip
            async with refused("NB400", message):
                await own.execute(f"select noetl.{call}")
        assert [row["status"] for row in await own.fetch(JOBS)] == ["leased", "queued"]
        yours, found, _ = await loop(own, job, result="x" * 2097150)
        assert (yours, found and found["node_name"]) == (True, "b")


async def test_a_freed_slot_of_a_throttle_is_leased_in_the_same_call(database: Database, loop: Loop) -> None:
    """The job that waited for it, where no other job was ready."""
    async with session(database) as own:
        for node in "abc":
            await put_job(own, node)
        await own.fetch(THROTTLED, 1)
        first = await own.fetchrow(LEASE, "w", None)
        assert first is not None
        _, second, _ = await loop(own, first["queue_id"])
        assert second is not None
        free = await put_job(own, "free", priority=9)
        _, third, _ = await loop(own, second["queue_id"])
        assert [first["node_name"], second["node_name"], third and third["queue_id"]] == ["a", "b", free]
        _, fourth, _ = await loop(own, free)
        assert fourth is not None
        assert fourth["node_name"] == "c"
        assert (await loop(own, fourth["queue_id"]))[1] is None


async def test_no_more_than_max_jobs_are_leased_of_freed_slots(database: Database) -> None:
    """One other job was ready, so one of the two slots is leased."""
    call = "select node_name from noetl.complete_jobs_and_lease('w', $1, '{1,1,1}', null, 2) where yours is null"
    async with session(database) as own:
        for node in "abcd":
            await put_job(own, node)
        await own.fetch(THROTTLED, 2)
        await put_job(own, "plain", priority=0)
        held = [row["queue_id"] for row in await own.fetch("select queue_id from noetl.lease_jobs('w', 9)")]
        await put_job(own, "free")
        assert len(held) == 3
        assert [row["node_name"] for row in await own.fetch(call, held)] == ["free", "c"]


@pytest.mark.parametrize("call", [by_two_calls, by_one_call, by_arrays])
async def test_the_broker_is_notified_only_of_a_job_that_ended(database: Database, call: Loop) -> None:
    """While it sleeps. A late answer and a lease are nothing to it."""
    async with session(database) as own, session(database) as broker:
        a, _ = await leased(own, "a", "b")
        told: list[str] = []
        await broker.execute("select pg_advisory_lock(hashtext('noetl.lock'), 1)")
        await broker.add_listener("noetl_event", lambda *_: told.append("mail"))
        await put_job(own, "c")
        assert (await call(own, a, attempt=2))[1] is not None
        await broker.execute("select")
        assert told == []
        next_told = await listen(broker)
        assert (await call(own, a))[0] is True
        assert await next_told() == ""
        assert (await call(own, a))[0] is True
        await broker.execute("select")
        assert told == ["mail"]


async def test_two_calls_at_once_end_a_job_once_and_lease_different_jobs(database: Database, loop: Loop) -> None:
    """The second waits for the end of the job alone."""
    async with session(database) as first, session(database) as second:
        [a] = await leased(first, "a")
        b, c = await put_job(first, "b"), await put_job(first, "c")
        async with first.transaction():
            yours, found, _ = await loop(first, a)
            again = asyncio.create_task(loop(second, a))
            await blocked(first)
        assert (yours, found and found["queue_id"]) == (True, b)
        yours, found, _ = await again
        assert (yours, found and found["queue_id"]) == (True, c)
        events = await first.fetch("select event_type from noetl.event order by event_id")
    kinds = [row["event_type"] for row in events]
    assert (kinds.count("action_completed"), kinds.count("action_started")) == (1, 3)


async def test_a_job_that_another_session_has_locked_is_passed_over(database: Database, loop: Loop) -> None:
    """Nobody waits for it."""
    async with session(database) as own, session(database) as other:
        [a] = await leased(own, "a")
        locked, free = await put_job(own, "locked", priority=9), await put_job(own, "free")
        async with other.transaction(), asyncio.timeout(PATIENCE_SECONDS):
            await other.execute("select from noetl.queue where queue_id = $1 for update", locked)
            _, found, _ = await loop(own, a)
    assert found is not None
    assert found["queue_id"] == free


async def test_after_a_slow_scan_it_leases_from_the_mark(database: Database, loop: Loop) -> None:
    """As lease_jobs does: the scan seemed to take a second."""
    slow = "select noetl.choose_jobs(10, null, '{default}', clock_timestamp() - interval '1 second')"
    older = "update noetl.queue set available_at = clock_timestamp() - interval '1 min' where node_name = 'old'"
    async with session(database) as own:
        [a] = await leased(own, "a")
        await own.execute(slow)
        await put_job(own, "old")
        await own.execute(older)
        assert await loop(own, a) == (True, None, None)
        await own.execute("select set_config('noetl.lease_mark', '', false)")
        assert (await loop(own, a))[1] is not None


async def test_after_a_slow_call_the_next_one_measures_its_scan(database: Database, loop: Loop) -> None:
    """A trigger of the user makes it slow."""
    slow = """
        create function public.slow() returns trigger language plpgsql as
        $$ begin perform pg_sleep(0.011); return null; end $$;
        create trigger slow after insert on noetl.event for each statement execute function public.slow()"""
    async with session(database) as own:
        [a] = await leased(own, "a")
        await own.execute("select set_config('noetl.lease_mark', '', false)")
        await own.execute(slow)
        await loop(own, a)
        assert await own.fetchval("select current_setting('noetl.lease_mark')") == "slow"
