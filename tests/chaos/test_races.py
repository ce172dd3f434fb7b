"""Two writers end the same thing at once, and a playbook is removed under a running execution."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from tests.brokers import (
    broken_invariants,
    complete_jobs,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    until_ended,
    value,
)
from tests.chaos.sampling import LONG
from tests.chaos.under_load import until
from tests.consistency import inconsistencies
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

RACES = 1_000 if LONG else 50
SURE = 3  # executions in which one side ends before the other begins, for each side
AT_ONCE = 25  # families whose two sides end in one statement each

CHAIN = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end, result: "{{ a.ok }}"}
"""
PARENT = """
workflow:
- {step: start, next: [call, work]}
- {step: call, type: playbook, path: child, next: end}
- {step: work, type: python, code: x, next: end}
- {step: end}
"""
JOBS = "select execution_id, queue_id, attempts, node_name from noetl.lease_jobs('w', 100000)"
FAMILIES = "select execution_id, parent_execution_id from noetl.execution where parent_execution_id is not null"
COMPLETE = """
    select noetl.complete_job(queue_id, 'w', attempts, '{"ok": true}')
    from unnest($1::bigint[], $2::int[]) j (queue_id, attempts)"""
FAIL = """
    select noetl.fail_job(queue_id, 'w', attempts, '{"message": "no"}', false)
    from unnest($1::bigint[], $2::int[]) j (queue_id, attempts)"""
CANCEL = "select noetl.cancel_execution(execution_id) from unnest($1::bigint[]) x (execution_id)"
STATUS = "select status from noetl.execution where execution_id = $1"
ENDED = "select ended_at is not null from noetl.execution where execution_id = $1"
ENDS = """
    select x.path, x.status, count(*)
    from noetl.execution x
    group by x.path, x.status
    order by 1, 2"""
CANCELLED_JOB = """
    select count(*)
    from noetl.event
    where execution_id = any($1::bigint[]) and event_type = 'execution_cancel'"""
END_EVENTS = """
    select count(*)
    from noetl.event
    where event_type in ('execution_complete', 'execution_failed', 'execution_cancelled') and meta ? 'turn'
    group by execution_id
    having count(*) <> 1"""


async def statuses(database: Database, jobs: Sequence[tuple[int, ...]]) -> list[str]:
    """Give the statuses of the executions of these jobs."""
    return [await value(database, STATUS, job[0]) for job in jobs]


async def test_a_cancel_and_a_completion_at_once_make_one_end(
    database: Database, tried: Callable[[str, object], None]
) -> None:
    """Two sessions send them while two brokers read. Who ends before the other begins is the winner."""
    await register(database, CHAIN)
    await start(database, count=RACES + 2 * SURE)
    await drain(database)
    jobs = await rows(database, JOBS)
    assert len(jobs) == RACES + 2 * SURE
    completed, cancelled, raced = jobs[:SURE], jobs[SURE : 2 * SURE], jobs[2 * SURE :]
    async with session(database) as worker, session(database) as operator, running(database), running(database):
        for job in completed:
            await worker.fetch(COMPLETE, [job[1]], [job[2]])
            await until(database, ENDED, job[0])
            await operator.fetch(CANCEL, [job[0]])
        for job in cancelled:
            await operator.fetch(CANCEL, [job[0]])
            await until(database, ENDED, job[0])
            await worker.fetch(COMPLETE, [job[1]], [job[2]])
        for index, (execution_id, queue_id, attempt, _) in enumerate(raced):
            sides = [worker.fetch(COMPLETE, [queue_id], [attempt]), operator.fetch(CANCEL, [execution_id])]
            await asyncio.gather(*(reversed(sides) if index % 2 else sides))
        await until_ended(database)
    await drain(database)
    assert await rows(database, END_EVENTS) == []
    assert await broken_invariants(database) == {}
    ends = {status: count for _, status, count in await rows(database, ENDS)}
    tried(f"cancel against complete, {RACES} races", f"one end each: {ends}")
    assert sum(ends.values()) == RACES + 2 * SURE
    assert set(ends) == {"COMPLETED", "CANCELLED"}
    assert await statuses(database, completed) == ["COMPLETED"] * SURE
    assert await statuses(database, cancelled) == ["CANCELLED"] * SURE


async def test_a_parent_and_a_child_that_end_at_once_both_end(
    database: Database, tried: Callable[[str, object], None]
) -> None:
    """The last job of the child completes while a branch of the parent fails, which cancels the child."""
    families = RACES // 5 + 2 * SURE
    await register(database, PARENT)
    await register(database, CHAIN, path="child")
    await start(database, count=families)
    await drain(database)
    jobs = await rows(database, JOBS)
    of_parents = {job[0]: job for job in jobs if job[3] == "work"}
    parents = dict(await rows(database, FAMILIES))
    lasts = [job for job in jobs if job[3] == "a"]
    breaks = [of_parents[parents[job[0]]] for job in lasts]
    assert len(lasts) == len(breaks) == families
    async with session(database) as worker, session(database) as other, running(database), running(database):
        for index, (last, break_) in enumerate(zip(lasts[: 2 * SURE], breaks[: 2 * SURE], strict=True)):
            sides = [(worker, COMPLETE, last), (other, FAIL, break_)]
            if index >= SURE:
                sides.reverse()
            for own, statement, job in sides:
                await own.fetch(statement, [job[1]], [job[2]])
                await until(database, ENDED, last[0])
        for index in range(2 * SURE, families, AT_ONCE):
            done, failed = lasts[index : index + AT_ONCE], breaks[index : index + AT_ONCE]
            half = len(done) // 2
            await worker.fetch(COMPLETE, [job[1] for job in done[:half]], [job[2] for job in done[:half]])
            await other.fetch(FAIL, [job[1] for job in failed], [job[2] for job in failed])
            # The other half completes while the broker reads the first failures, which cancel these jobs.
            await until(database, CANCELLED_JOB, [job[0] for job in done[half:]])
            for job in reversed(done[half:]):
                await worker.fetch(COMPLETE, [job[1]], [job[2]])
        await until_ended(database)
    await drain(database)
    assert await rows(database, END_EVENTS) == []
    assert await inconsistencies(database) == {}
    ends = {f"{path} {status}": count for path, status, count in await rows(database, ENDS)}
    tried(f"parent and child end at once, {families} families", f"one end each: {ends}")
    assert set(ends) == {"child CANCELLED", "child COMPLETED", "story FAILED"}
    assert await statuses(database, lasts[:SURE]) == ["COMPLETED"] * SURE
    assert await statuses(database, lasts[SURE : 2 * SURE]) == ["CANCELLED"] * SURE


async def test_a_broker_with_a_cached_playbook_needs_no_catalog_row(
    database: Database, tried: Callable[[str, object], None]
) -> None:
    """The row is deleted; no mail becomes a dead letter."""
    await register(database, CHAIN)
    async with running(database):
        await start(database)
        await until(database, "select exists (select from noetl.queue where status = 'queued')")
        kept = await rows(database, "delete from noetl.catalog returning catalog_id, content")
        assert await complete_jobs(database, {"ok": True}) == 1
        await until_ended(database)
    insert = "insert into noetl.catalog (catalog_id, path, version, content) values ($1, 'story', 1, $2)"
    await execute(database, insert, *kept[0])
    assert await rows(database, ENDS) == [("story", "COMPLETED", 1)]
    assert await broken_invariants(database) == {}
    tried("a catalog row removed in mid-run", "ends as it began")
