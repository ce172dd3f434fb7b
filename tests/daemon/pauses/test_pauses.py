"""Pause and resume of executions: their jobs, their children, and what goes on meanwhile."""

from __future__ import annotations

import pytest

from noetl_broker.store.turn import effects
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database
from tests.sessions import session

CHAIN = """
workflow:
  - {step: start, next: [a, b]}
  - {step: a, type: python, code: "def main(): ...", next: join}
  - {step: b, type: python, code: "def main(): ...", next: join}
  - {step: join, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
WIDE = """
workload: {n: 10}
workflow:
  - {step: start, next: each}
  - step: each
    type: iterator
    collection: "{{ range(workload.n) }}"
    element: x
    mode: async
    concurrency: 10000
    distribute: true
    task: {type: python, code: "def main(): ..."}
    next: end
  - {step: end}
"""
PARENT = """
workflow:
  - {step: start, next: call}
  - {step: call, type: playbook, path: child, next: end}
  - {step: end}
"""
JOBS = "select node_name, status, held_for from noetl.queue where node_type <> 'playbook' order by node_name"
STATUS = "select status from noetl.execution where path = $1 order by execution_id"


async def test_jobs_of_a_paused_execution_are_held_and_released(database: Database) -> None:
    """No worker gets one meanwhile. A lease that was taken before may end."""
    await register(database, CHAIN)
    (execution_id,) = await start(database)
    await drain(database)
    leased = await rows(database, "select queue_id, attempts from noetl.lease_jobs('w', 1)")
    assert await value(database, "select noetl.pause_execution($1, 'disk full')", execution_id)
    await drain(database)
    assert await value(database, STATUS, "story") == "PAUSED"
    assert await rows(database, JOBS) == [("a", "leased", None), ("b", "held", ["pause"])]
    assert await rows(database, "select queue_id from noetl.lease_jobs('w', 9)") == []
    assert await value(database, "select noetl.complete_job($1, 'w', $2, '1')", *leased[0])
    await drain(database)
    assert await rows(database, JOBS) == [("a", "done", None), ("b", "held", ["pause"])]
    assert await value(database, "select noetl.resume_execution($1)", execution_id)
    await drain(database)
    assert await value(database, STATUS, "story") == "RUNNING"
    await complete_jobs(database)
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    assert await value(database, STATUS, "story") == "COMPLETED"
    assert await inconsistencies(database) == {}


async def test_many_jobs_are_parked_and_released_in_bounded_turns(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further part is a turn of its own."""
    monkeypatch.setattr(effects, "MOST_HELD", 100)
    await register(database, WIDE)
    (execution_id,) = await start(database, payload={"n": 110})
    await drain(database)
    held = "select count(*) from noetl.queue where status = 'held'"
    await execute(database, "select noetl.pause_execution($1)", execution_id)
    await drain(database)
    assert await value(database, held) == 110
    await execute(database, "select noetl.resume_execution($1)", execution_id)
    await drain(database)
    assert await value(database, held) == 0
    events = "select count(*) from noetl.event where event_type = 'holds_due'"
    assert await value(database, events) == 2
    await complete_jobs(database)
    await drain(database)
    assert await value(database, STATUS, "story") == "COMPLETED"
    assert await inconsistencies(database) == {}


async def test_a_retried_job_of_a_paused_execution_is_held(database: Database) -> None:
    """It is `retry` again after the resume."""
    await register(database, CHAIN.replace("step: a,", "step: a, retry: {max_attempts: 2, initial_delay: 60},"))
    (execution_id,) = await start(database)
    await drain(database)
    leased = await rows(database, "select queue_id, attempts from noetl.lease_jobs('w', 1)")
    await execute(database, "select noetl.pause_execution($1)", execution_id)
    await drain(database)
    await execute(database, "select noetl.fail_job($1, 'w', $2, '{\"message\": \"no\"}')", *leased[0])
    await drain(database)
    assert await rows(database, JOBS) == [("a", "held", ["pause"]), ("b", "held", ["pause"])]
    await execute(database, "select noetl.resume_execution($1)", execution_id)
    await drain(database)
    assert await rows(database, JOBS) == [("a", "retry", None), ("b", "queued", None)]
    assert await value(database, "select available_at > now() + interval '20 s' from noetl.queue where node_name = 'a'")


async def test_a_lost_lease_of_a_paused_execution_is_held(database: Database) -> None:
    """The reaper does not give it to another worker."""
    await register(database, CHAIN)
    (execution_id,) = await start(database)
    await drain(database)
    await execute(database, "select noetl.lease_jobs('w', 1)")
    await execute(database, "select noetl.pause_execution($1)", execution_id)
    await drain(database)
    await execute(database, "update noetl.queue set lease_until = now() - interval '1 s' where status = 'leased'")
    await execute(database, "select noetl.reap(100, 5)")
    assert await rows(database, JOBS) == [("a", "held", ["pause"]), ("b", "held", ["pause"])]
    await execute(database, "select noetl.resume_execution($1)", execution_id)
    await drain(database)
    assert await rows(database, JOBS) == [("a", "queued", None), ("b", "queued", None)]


async def test_a_job_that_was_locked_at_the_pause_is_held_later(database: Database) -> None:
    """A turn does not wait for an uncommitted lease. If it is rolled back, the reaper asks for the job."""
    await register(database, CHAIN)
    (execution_id,) = await start(database)
    await drain(database)
    async with session(database) as worker:
        await worker.execute("begin")
        await worker.execute("select noetl.lease_jobs('w', 1)")
        await execute(database, "select noetl.pause_execution($1)", execution_id)
        await drain(database)
        assert await rows(database, JOBS) == [("a", "queued", None), ("b", "held", ["pause"])]
        await execute(database, "select noetl.reap(100, 5)")
        await worker.execute("rollback")
    await execute(database, "select noetl.reap(100, 5)")
    await drain(database)
    assert await rows(database, JOBS) == [("a", "held", ["pause"]), ("b", "held", ["pause"])]
    assert await rows(database, "select node_id from noetl.unheld_job") == []


async def test_children_are_paused_with_their_parent(database: Database) -> None:
    """A child that was paused by itself stays paused when the parent resumes."""
    await register(database, PARENT)
    await register(database, CHAIN, path="child")
    parents = await start(database, count=2)
    await drain(database)
    children = "select execution_id from noetl.execution where path = 'child' order by parent_execution_id"
    [[child], _] = await rows(database, children)
    await execute(database, "select noetl.pause_execution($1)", child)
    await execute(database, "select noetl.pause_execution(id, 'a fix') from unnest($1::bigint[]) id", parents)
    await drain(database)
    assert await rows(database, "select distinct status from noetl.execution") == [("PAUSED",)]
    await execute(database, "select noetl.resume_execution(id) from unnest($1::bigint[]) id", parents)
    await drain(database)
    statuses = (
        "select path, status from noetl.execution order by coalesce(parent_execution_id, execution_id), path desc"
    )
    assert await rows(database, statuses) == [
        ("story", "RUNNING"), ("child", "PAUSED"), ("story", "RUNNING"), ("child", "RUNNING"),
    ]  # fmt: skip
    await execute(database, "select noetl.resume_execution($1)", child)
    await drain(database)
    for _ in range(2):
        await complete_jobs(database)
        await drain(database)
    assert await rows(database, "select distinct status from noetl.execution") == [("COMPLETED",)]
    assert await inconsistencies(database) == {}


async def test_a_pause_and_its_end_in_one_batch_leave_jobs_as_they_are(database: Database) -> None:
    """The resume may be read first, too."""
    await register(database, CHAIN)
    (execution_id,) = await start(database)
    await execute(database, "select noetl.pause_execution($1)", execution_id)
    await execute(database, "select noetl.resume_execution($1)", execution_id)
    await drain(database)
    assert await rows(database, JOBS) == [("a", "queued", None), ("b", "queued", None)]
    assert await value(database, STATUS, "story") == "RUNNING"
