"""Playbooks in playbooks, for real: children start, answer, fail, start again, and are cancelled with their parents."""

from __future__ import annotations

from noetl_broker.broker.model import Rules
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.settled import unsettled

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


async def test_a_child_runs_and_its_answer_is_the_steps_result(database: Database) -> None:
    """Started in the parent's transaction with its inputs as payload; `return_step` says what is answered."""
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
    assert await unsettled(database) == {}


async def test_a_failed_child_is_started_again_by_the_retry_of_its_step(database: Database) -> None:
    """The first child fails, a second one answers; the first one's letter counts once."""
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
    await execute(database, "select noetl.reap(100, 5)")
    await drain(database)
    await complete_jobs(database, {"answer": 1})
    await drain(database)
    assert await rows(database, ENDED) == [("story", "COMPLETED"), ("child", "FAILED"), ("child", "COMPLETED")]
    assert await unsettled(database) == {}


async def test_a_child_that_starts_after_the_timeout_of_its_step_has_one_of_its_own(database: Database) -> None:
    """The pause before it was over, and no broker read so for longer than the child may take."""
    await register(database, PARENT.replace("  path: child\n", "  path: child\n  timeout: 60\n"))
    await register(database, CHILD, path="child")
    await start(database)
    await drain(database)
    await execute(
        database,
        "select noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"no\"}') from noetl.lease_jobs('w', 9)",
    )
    await drain(database)
    assert await value(database, "select woken from noetl.reap(100, 5)") == 1
    for children in (("FAILED", "RUNNING"), ("FAILED", "CANCELLED")):
        await execute(database, "update noetl.queue set first_leased_at = first_leased_at - interval '1 hour'")
        assert await value(database, "select timed_out from noetl.reap(100, 5)") == 1
        await drain(database)
        assert await rows(database, ENDED) == [
            ("story", "RUNNING" if "RUNNING" in children else "FAILED"),
            *(("child", status) for status in children),
        ]
    assert await value(database, "select error ->> 'type' from noetl.execution where path = 'story'") == "timeout"
    assert await unsettled(database) == {}


async def test_cancelling_a_parent_cancels_its_children_all_the_way_down(database: Database) -> None:
    """Three levels; the letters of the cancelled come after the end and change nothing."""
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
    assert await unsettled(database) == {}


async def test_a_playbook_that_is_not_there_fails_the_step_with_its_path(database: Database) -> None:
    """The child's own failure is the reason."""
    await register(database, CALL.format("nowhere"))
    await start(database)
    await drain(database)
    error = await value(database, "select error from noetl.execution where path = 'story'")
    assert (error["step"], error["message"]) == ("call", "no playbook nowhere is registered")
    assert await unsettled(database) == {}


async def test_nesting_has_a_limit(database: Database) -> None:
    """A playbook that starts itself ends with an error that names the limit, at every level."""
    await register(database, CALL.format("story"))
    await start(database)
    await drain(database, rules=Rules(max_nesting=4))
    ended = await rows(database, "select status, error ->> 'message' from noetl.execution")
    message = "step call would start a playbook at depth 5; the limit max_nesting is 4"
    assert ended == [("FAILED", message)] * 5
    assert await unsettled(database) == {}
