"""Child executions: they start, answer, fail, are retried, and are cancelled with their parents."""

from __future__ import annotations

from noetl_broker.broker.model.rules import Rules
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database

PARENT = """
workflow:
- {step: start, next: call}
- step: call
  type: playbook
  path: child
  args: {n: 5}
  return_step: work
  retry: {max_attempts: 2, initial_delay: 0}
  next: end
- {step: end, result: "{{ call }}"}
"""
CALL = """
workflow:
- {{step: start, next: call}}
- {{step: call, type: playbook, path: {0}}}
"""
CHILD = """
workload: {n: 1, m: 2}
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, args: {sum: "{{ workload.n + workload.m }}"}, next: end}
- {step: end, result: not this}
"""
ENDED = "select path, status from noetl.execution order by execution_id"


async def test_the_answer_of_a_child_is_the_result_of_the_step(database: Database) -> None:
    """It starts in the parent's transaction with its inputs as payload. `return_step` chooses the answer."""
    await register(database, PARENT)
    await register(database, CHILD, path="child")
    [parent] = await start(database)
    await drain(database)
    [(action, step, child)] = await rows(
        database, "select action::jsonb -> 'args', node_name, execution_id from noetl.queue where status = 'queued'"
    )
    assert (action, step) == ({"sum": 7}, "work")
    await complete_jobs(database, {"answer": 42})
    await drain(database)
    assert await rows(database, ENDED) == [("story", "COMPLETED"), ("child", "COMPLETED")]
    assert await value(database, "select result from noetl.execution where path = 'story'") == {"answer": 42}
    assert await value(database, "select result from noetl.execution where path = 'child'") == "not this"
    begun = "select parent_execution_id, meta ->> 'parent_step' from noetl.event"
    where = " where execution_id = $1 and event_type = 'execution_start'"
    assert await rows(database, begun + where, child) == [(parent, "call")]
    assert await value(database, "select status from noetl.queue where node_name = 'call'") == "done"
    assert await inconsistencies(database) == {}


async def test_a_failed_child_is_retried_by_its_step(database: Database) -> None:
    """The first child fails, the second answers; the first answer counts once."""
    await register(database, PARENT)
    await register(database, CHILD, path="child")
    await start(database)
    await drain(database)
    await execute(
        database,
        "select noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"no\"}') from noetl.lease_jobs('w', 9)",
    )
    await drain(database)
    assert await value(database, "select count(*) from noetl.event where event_type = 'action_retry'") == 1
    await drain(database)
    await complete_jobs(database, {"answer": 1})
    await drain(database)
    assert await rows(database, ENDED) == [("story", "COMPLETED"), ("child", "FAILED"), ("child", "COMPLETED")]
    assert await inconsistencies(database) == {}


async def test_a_retried_child_has_its_own_timeout(database: Database) -> None:
    """It begins with the new child, not with the delay before it."""
    await register(database, PARENT.replace("  path: child\n", "  path: child\n  timeout: 60\n"))
    await register(database, CHILD, path="child")
    await start(database)
    await drain(database)
    await execute(
        database,
        "select noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"no\"}') from noetl.lease_jobs('w', 9)",
    )
    await drain(database)
    await execute(database, "update noetl.queue set first_leased_at = first_leased_at - interval '1 hour'")
    assert await value(database, "select timed_out from noetl.reap(100, 5)") == 1
    await drain(database)
    assert await rows(database, ENDED) == [("story", "FAILED"), ("child", "FAILED"), ("child", "CANCELLED")]
    assert await value(database, "select error ->> 'type' from noetl.execution where path = 'story'") == "timeout"
    assert await inconsistencies(database) == {}


async def test_cancelling_a_parent_cancels_all_its_descendants(database: Database) -> None:
    """Three levels. Their answers come after the end and change nothing."""
    await register(database, CALL.format("middle"))
    await register(database, CALL.format("child"), path="middle")
    await register(database, CHILD, path="child")
    [parent] = await start(database)
    await drain(database)
    assert await value(database, "select count(*) from noetl.execution") == 3
    await execute(database, "select noetl.cancel_execution($1, 'enough')", parent)
    await drain(database)
    assert {row[1] for row in await rows(database, ENDED)} == {"CANCELLED"}
    assert {row[0] for row in await rows(database, "select status from noetl.queue")} == {"cancelled"}
    assert await inconsistencies(database) == {}


async def test_a_playbook_that_starts_itself_meets_the_nesting_limit(database: Database) -> None:
    """The error names the limit at every level."""
    await register(database, CALL.format("story"))
    await start(database)
    await drain(database, rules=Rules(max_nesting=4))
    ended = await rows(database, "select status, error ->> 'message' from noetl.execution")
    message = "step call would start a playbook at depth 5; the limit max_nesting is 4"
    assert ended == [("FAILED", message)] * 5
    assert await inconsistencies(database) == {}
