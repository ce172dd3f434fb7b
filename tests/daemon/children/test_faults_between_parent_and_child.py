"""Faults between parents and children: each ends, nothing stays open, and a replay agrees."""

from __future__ import annotations

import asyncio

import pytest

from noetl_broker.store.connection import connect
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database

CALL = """
workflow:
- {{step: start, next: call}}
- {{step: call, type: playbook, path: child, {more}}}
"""
WORK = """
workload: {n: 1, own: here}
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, next: end}
- {step: end, result: {n: "{{ workload.n }}"}}
"""
BROKEN = """
workload: {a: "{{ nothing.b }}"}
workflow: [{step: start}]
"""
AGAIN = "retry: {max_attempts: 3, initial_delay: 0}"
NO_CHILD = "no playbook child is registered"
PAUSES_END = "update noetl.timer set due_at = now() where purpose = 'child'"
ANNOUNCE = """
    insert into noetl.event (execution_id, event_type, node_id, node_name, context)
    values ($1::bigint, $2, $1::bigint || ':work', 'work',
      jsonb_build_object('child_execution_id', $3::bigint, 'index', 0))"""


async def drain_through_pauses(database: Database, *, reap_first: bool = False) -> None:
    """Decide, and end retry delays, until nothing waits."""
    if reap_first:
        await execute(database, "select noetl.reap(100, 5)")
    due = 1
    while due:
        await drain(database)
        await execute(database, PAUSES_END)
        due = await value(database, "select fired from noetl.fire_timers(100)")


async def let_an_hour_pass(database: Database) -> None:
    """Let timeouts and deadlines expire, and decide what follows."""
    await execute(database, "update noetl.queue set first_leased_at = first_leased_at - interval '1 hour'")
    await execute(database, "update noetl.timer set due_at = due_at - interval '1 hour'")
    await drain_through_pauses(database, reap_first=True)


@pytest.mark.parametrize(
    "child, more, message, attempts",
    [
        (None, AGAIN, NO_CHILD, 3),
        (None, "retry: false", NO_CHILD, 1),
        (WORK, f"version: 7, {AGAIN}", "no playbook child version 7 is registered", 3),
        (BROKEN, AGAIN, "`nothing` is undefined: no input, step with a result or workload key has that name", 3),
        ("workflow: 5", AGAIN, "playbook child does not compile", 3),
        (WORK, "return_step: nowhere", "the parent asks for the data of step nowhere", 1),
        (WORK, "version: '{{ 3000000000 }}'", "the version of a playbook must be a whole number", 0),
    ],
)
async def test_a_child_that_cannot_start_fails_its_parent(
    database: Database, child: str | None, more: str, message: str, attempts: int
) -> None:
    """After all attempts of its step, with the child's reason."""
    await register(database, CALL.format(more=more))
    if child is not None:
        await register(database, child, path="child")
    await start(database)
    await drain_through_pauses(database)
    [(status, error)] = await rows(database, "select status, error from noetl.execution where path = 'story'")
    assert (status, error["step"]) == ("FAILED", "call")
    assert error["message"].startswith(message)
    assert await value(database, "select count(*) from noetl.execution where path = 'child'") == attempts
    assert await inconsistencies(database) == {}


async def test_a_child_sees_only_the_inputs_of_its_step(database: Database) -> None:
    """They are its payload: it has neither the parent's workload nor the priority of the step."""
    await register(database, CALL.format(more="priority: 9, args: {n: 7}"), metadata="priority: 8")
    await register(database, WORK, path="child")
    await start(database, payload={"n": 2, "secret": "x"})
    await drain(database)
    assert await value(database, "select workload from noetl.execution where path = 'child'") == {"n": 7, "own": "here"}
    assert await value(database, "select priority from noetl.queue where node_name = 'work'") == 5
    await complete_jobs(database)
    await drain(database)
    assert await value(database, "select result from noetl.execution where path = 'story'") == {"n": 7}
    assert await inconsistencies(database) == {}


async def test_a_child_that_times_out_is_cancelled_and_retried(database: Database) -> None:
    """The late answer of the first child changes nothing."""
    await register(database, CALL.format(more="timeout: 60, retry: {max_attempts: 2, initial_delay: 0}"))
    await register(database, WORK, path="child")
    await start(database)
    await drain(database)
    await let_an_hour_pass(database)
    children = "select status from noetl.execution where path = 'child' order by execution_id"
    assert await rows(database, children) == [("CANCELLED",), ("RUNNING",)]
    await complete_jobs(database)
    await drain(database)
    assert await rows(database, children) == [("CANCELLED",), ("COMPLETED",)]
    assert await value(database, "select result from noetl.execution where path = 'story'") == {"n": 1}
    assert await inconsistencies(database) == {}


async def test_an_answer_inserted_during_the_delay_of_a_retry_completes_the_step(database: Database) -> None:
    """The child is not started again when the delay is over."""
    await register(database, CALL.format(more="retry: {max_attempts: 2, initial_delay: 3600}"))
    await register(database, BROKEN, path="child")
    [parent] = await start(database)
    await drain(database)
    answer = """
        insert into noetl.event (execution_id, event_type, node_id, node_name, result)
        values ($1::bigint, 'action_completed', $1::bigint || ':call', 'call', '5')"""
    await execute(database, answer, parent)
    await drain_through_pauses(database)
    assert await rows(database, "select path, status, result from noetl.execution order by execution_id") == [
        ("story", "COMPLETED", 5),
        ("child", "FAILED", None),
    ]
    assert await inconsistencies(database) == {}


async def test_the_deadline_of_a_child_fails_only_the_child(database: Database) -> None:
    """The parent gets a failure, and may go on."""
    await register(database, CALL.format(more="on_error: continue"))
    await register(database, WORK, path="child", metadata="deadline: 60")
    await start(database)
    await drain(database)
    await let_an_hour_pass(database)
    assert await rows(database, "select path, status from noetl.execution order by execution_id") == [
        ("story", "COMPLETED"),
        ("child", "FAILED"),
    ]
    assert await inconsistencies(database) == {}


async def test_a_cancelled_child_is_not_retried(database: Database) -> None:
    """The step fails with the reason of the cancel, whatever its `retry` says."""
    await register(database, CALL.format(more=AGAIN))
    await register(database, WORK, path="child")
    await start(database)
    await drain(database)
    cancel = "select noetl.cancel_execution(execution_id, 'too dear') from noetl.execution where path = 'child'"
    await execute(database, cancel)
    await drain_through_pauses(database)
    outcome = "select status, error ->> 'message', error ->> 'type' from noetl.execution where path = 'story'"
    assert await rows(database, outcome) == [("FAILED", "too dear", "child_cancelled")]
    assert await inconsistencies(database) == {}


async def test_a_cancel_waits_for_a_start_that_another_broker_holds(database: Database) -> None:
    """The cancel stays in the inbox, and is decided after the start."""
    await register(database, WORK)
    [execution_id] = await start(database)
    await execute(database, "select noetl.cancel_execution($1)", execution_id)
    other = await connect(database, name="test")
    try:
        async with other.transaction():
            await other.execute("select from noetl.inbox order by mail_id limit 1 for update")
            assert await rows(database, "select locked from noetl.take_mail(9, true, 0)") == [(False,)]
    finally:
        await other.close()
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "CANCELLED"
    assert await inconsistencies(database) == {}


async def test_all_mail_of_an_execution_is_claimed_or_none(database: Database) -> None:
    """The lock becomes free between the attempts for the start and for the cancel. The cancel must not come alone."""
    await register(database, WORK)
    [execution_id] = await start(database)
    await execute(database, "select noetl.cancel_execution($1)", execution_id)
    source = await value(database, "select pg_get_functiondef('noetl.lock_executions'::regproc)")
    try_lock = "pg_try_advisory_xact_lock(u.execution_id)"
    assert source.count(try_lock) == 1
    await execute(database, source.replace(try_lock, "u.ordinal > 1"))
    assert await rows(database, "select locked from noetl.take_mail(9, false, 0)") == [(False,), (False,)]


async def test_a_completion_waits_for_earlier_mail_about_children(database: Database) -> None:
    """Another broker holds the announced child: otherwise the step would complete without waiting for it."""
    await register(database, WORK)
    await register(database, WORK, path="child")
    [parent], [child] = await start(database), await start(database, "child")
    await drain(database)
    await execute(database, ANNOUNCE, parent, "iteration_started", child)
    await execute(database, ANNOUNCE, parent, "action_completed", child)
    other = await connect(database, name="test")
    try:
        async with other.transaction():
            await other.execute("select from noetl.inbox order by mail_id limit 1 for update")
            assert await rows(database, "select locked from noetl.take_mail(9, false, 0)") == [(False,)]
    finally:
        await other.close()
    await drain(database)
    assert await value(database, "select status from noetl.execution where path = 'story'") == "RUNNING"
    await complete_jobs(database)
    await drain(database)
    assert await value(database, "select result from noetl.execution where path = 'story'") == {"n": 1}
    assert await inconsistencies(database) == {}


async def test_a_completion_waits_for_earlier_mail_however_far_back(database: Database) -> None:
    """A claim of the newest mail finds the completion first, with a backlog before it."""
    await register(database, WORK)
    await register(database, WORK, path="child")
    [parent], [child] = await start(database), await start(database, "child")
    await drain(database)
    await execute(database, ANNOUNCE, parent, "iteration_started", child)
    await execute(
        database, "insert into noetl.event (execution_id, event_type) select 7, 'noise' from generate_series(1, 3000)"
    )
    await execute(database, ANNOUNCE, parent, "action_completed", child)
    statement = "select event_type, locked from noetl.take_mail(1, true, 0)"
    assert await rows(database, statement) == [("action_completed", False)]
    await drain(database)
    assert await value(database, "select status from noetl.execution where path = 'story'") == "RUNNING"


async def test_each_visit_of_a_step_waits_for_its_own_child(database: Database) -> None:
    """In a loop of steps."""
    await register(
        database,
        """
        workflow:
        - {step: start, next: [{step: call, args: {n: 1}}]}
        - step: call
          type: playbook
          path: child
          next: [{when: call.n < 3, step: call, args: {n: "{{ call.n + 1 }}"}}, {else: [end]}]
        - {step: end, result: "{{ call.n }}"}
        """,
    )
    await register(database, WORK, path="child")
    await start(database)
    for _ in range(3):
        await drain(database)
        await complete_jobs(database)
    await drain(database)
    assert await value(database, "select result from noetl.execution where path = 'story'") == 3
    nodes = "select split_part(parent_node_id, ':', 2) from noetl.execution where path = 'child' order by execution_id"
    assert await rows(database, nodes) == [("call",), ("call#2",), ("call#3",)]
    assert await inconsistencies(database) == {}


async def test_a_failed_branch_cancels_the_child_of_another_branch(database: Database) -> None:
    """Also a child that would start in the turn in which its parent fails."""
    await register(
        database,
        """
        workflow:
        - {step: start, next: [call, work, late]}
        - {step: call, type: playbook, path: child}
        - {step: work, type: python, code: x, on_error: continue, next: [{step: call_too}, {step: bad}]}
        - {step: call_too, type: playbook, path: child}
        - {step: bad, type: python, code: x, args: {x: "{{ work.nothing }}"}}
        - {step: late, type: python, code: x}
        """,
    )
    await register(database, WORK, path="child")
    [parent] = await start(database)
    await drain(database)
    complete = """
        select noetl.complete_job(queue_id, 'w', attempts, '{}')
        from noetl.lease_jobs('w', 9)
        where execution_id = $1 and node_name = 'work'"""
    await execute(database, complete, parent)
    await drain(database)
    assert await rows(database, "select path, status from noetl.execution order by execution_id") == [
        ("story", "FAILED"),
        ("child", "CANCELLED"),
    ]
    assert await value(database, "select count(*) from noetl.queue where status = 'leased'") == 2


async def test_an_answer_by_hand_cancels_the_child(database: Database) -> None:
    """An operator completes the step by an event, so the child is not needed any more."""
    await register(database, CALL.format(more="priority: 1"))
    await register(database, WORK, path="child")
    [parent] = await start(database)
    await drain(database)
    await execute(
        database,
        """insert into noetl.event (execution_id, event_type, node_id, node_name, result)
        values ($1::bigint, 'action_completed', $1::bigint || ':call', 'call', '"by hand"')""",
        parent,
    )
    await drain(database)
    assert await rows(database, "select path, status, result from noetl.execution order by execution_id") == [
        ("story", "COMPLETED", "by hand"),
        ("child", "CANCELLED", None),
    ]
    assert await inconsistencies(database) == {}


async def test_an_index_in_a_workers_meta_makes_no_item(database: Database) -> None:
    """Only answers of children have an index; an event of a worker is about the whole step."""
    await register(database, WORK)
    [execution_id] = await start(database)
    await drain(database)
    await execute(
        database,
        """insert into noetl.event (execution_id, event_type, node_id, node_name, result, meta)
        values ($1::bigint, 'action_completed', $1::bigint || ':work', 'work', '1', '{"index": 0}')""",
        execution_id,
    )
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "COMPLETED"
    assert await inconsistencies(database) == {}


async def test_three_generations_end(database: Database) -> None:
    """Two brokers and thirty families, in which every third grandchild fails."""
    await register(database, CALL.format(more='args: {n: "{{ workload.n }}"}'))
    await register(
        database, CALL.replace("path: child", "path: grandchild").format(more='args: {n: "{{ n }}"}'), path="child"
    )
    await register(database, WORK, path="grandchild")
    for n in range(30):
        await start(database, payload={"n": n})
    await asyncio.gather(drain(database), drain(database))
    await execute(
        database,
        """select case when (context -> 'workload' ->> 'n')::int % 3 = 0
          then noetl.fail_job(queue_id, 'w', attempts, '{"message": "no"}')
          else noetl.complete_job(queue_id, 'w', attempts)
        end from noetl.lease_jobs('w', 100)""",
    )
    await asyncio.gather(drain(database), drain(database))
    counts = "select path, status, count(*) from noetl.execution group by 1, 2 order by 1, 2"
    assert await rows(database, counts) == [
        (path, status, count)
        for path in ("child", "grandchild", "story")
        for status, count in (("COMPLETED", 20), ("FAILED", 10))
    ]
    assert await inconsistencies(database) == {}


@pytest.mark.parametrize("kind", ["type: playbook, path: nowhere", "type: python, code: x"])
async def test_a_pending_retry_is_withdrawn_when_its_execution_ends(database: Database, kind: str) -> None:
    """Also when the attempt and the execution fail in one batch."""
    await register(
        database,
        f"""
        workflow:
        - {{step: start, next: [again, once]}}
        - {{step: again, {kind}, retry: 3}}
        - {{step: once, {kind}}}
        """,
    )
    await start(database)
    await drain(database, lanes=1)
    fail = "select noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"no\"}') from noetl.lease_jobs('w', 9)"
    await execute(database, fail)
    await drain(database, lanes=1)
    statuses = "select node_name, status from noetl.queue order by 1"
    assert await rows(database, statuses) == [("again", "cancelled"), ("once", "dead")]
    assert await inconsistencies(database) == {}
