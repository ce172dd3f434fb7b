"""Losers of a join that it cancels: their jobs, children, items and waits end, and the execution does not wait."""

from __future__ import annotations

from tests.brokers import broken_invariants, drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database

RACE = """
workflow:
- {step: start, next: [quick, queued, leased, call, each, words, days]}
- {step: quick, type: python, code: x, next: first}
- {step: queued, type: python, code: x, priority: 1, next: first}
- {step: leased, type: python, code: x, next: first}
- {step: call, type: playbook, path: child, next: first}
- {step: each, type: iterator, collection: [1, 2], element: n, task: {type: playbook, path: child}, next: first}
- step: words
  type: iterator
  collection: [1, 2]
  element: n
  distribute: true
  task: {type: python, code: x}
  next: first
- {step: days, type: wait, for: 3d, next: first}
- {step: first, join: {need: 1, losers: cancel}, type: python, code: x, next: end}
- {step: end, result: "{{ first }}"}
"""
CHILD = "workflow: [{step: start, next: a}, {step: a, type: dbt}]"
LEASE = "select from noetl.lease_jobs('w', 3, node_types => array['python'])"
COMPLETE = """select noetl.complete_job(queue_id, 'w', attempts, $2)
    from noetl.queue where node_name = $1 and status = 'leased'"""
BEAT = "select noetl.heartbeat_job(queue_id, 'w', attempts) from noetl.queue where node_name = $1"
OPEN_JOBS = (
    "select node_name, status, stop from noetl.queue where status not in ('done', 'cancelled') order by node_name"
)
STEP = "select status, visits from noetl.workflow where step_id = $1"
EVENTS = "select node_name, meta -> 'spent' from noetl.event where event_type = 'step_cancelled' order by node_name"


async def win(database: Database) -> None:
    """Let `quick` win while its losers have open jobs, children, items and a timer."""
    await register(database, CHILD, path="child")
    await register(database, RACE)
    await start(database)
    await drain(database)
    await execute(database, LEASE)
    await execute(database, COMPLETE, "quick", 1)
    await drain(database)


async def test_the_losers_of_a_race_are_cancelled_in_its_turn(database: Database) -> None:
    """A worker with a job is told to stop; the rest is cancelled."""
    await win(database)
    losers = ["call", "days", "each", "leased", "queued", "words"]
    assert await rows(database, EVENTS) == [(name, ["first"]) for name in losers]
    assert await rows(database, OPEN_JOBS) == [
        ("first", "queued", False), ("leased", "leased", True), ("words", "leased", True),
    ]  # fmt: skip
    assert await value(database, BEAT, "leased") is False
    statuses = "select path, status from noetl.execution where path = 'child'"
    assert await rows(database, statuses) == [("child", "CANCELLED")] * 2
    assert await rows(database, "select status from noetl.iteration where status = 'RUNNING'") == []
    assert await rows(database, "select status from noetl.wait") == [("cancelled",)]
    assert await rows(database, "select from noetl.timer") == []
    assert await broken_invariants(database, ignore=["every execution ended"]) == {}


async def test_a_late_answer_of_a_cancelled_visit_changes_nothing(database: Database) -> None:
    """The fact is recorded; the execution completes with the winner, and a replay finds nothing."""
    await win(database)
    assert await rows(database, COMPLETE, "leased", 2) == [(True,)]
    assert await rows(database, COMPLETE, "words", 2) == [(True,)]
    await drain(database)
    ignored = "select outcome from noetl.turn t join noetl.event e using (execution_id, event_id) where node_name = $1"
    assert [await rows(database, ignored, name) for name in ("leased", "words")] == [[("duplicate",)]] * 2
    await execute(database, LEASE)
    await execute(database, COMPLETE, "first", 3)
    await drain(database)
    assert await rows(database, "select status, result from noetl.execution where path = 'story'") == [("COMPLETED", 3)]
    assert await rows(database, STEP, "leased") == [("CANCELLED", 1)]
    assert await inconsistencies(database) == {}
