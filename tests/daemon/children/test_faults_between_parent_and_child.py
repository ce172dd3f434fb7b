"""Faults between parents and children: each ends, nothing stays open, and a replay agrees."""

from __future__ import annotations

import pytest

from noetl_broker.store.connect.connection import connect
from tests.brokers import drain, execute, register, rows, start, value
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
PAUSES_END = "update noetl.timer set due_at = now() where purpose = 'child'"
ANNOUNCE = """
    insert into noetl.event (execution_id, event_type, node_id, node_name, context)
    values ($1::bigint, $2, $1::bigint || ':work', 'work',
      jsonb_build_object('child_execution_id', $3::bigint, 'index', 0))"""


async def drain_through_pauses(database: Database) -> None:
    """Decide, and end retry delays, until nothing waits."""
    due = 1
    while due:
        await drain(database)
        await execute(database, PAUSES_END)
        due = await value(database, "select fired from noetl.fire_timers(100)")


@pytest.mark.parametrize(
    "child, more, message, attempts",
    [
        (None, AGAIN, "no playbook child is registered", 3),
        (WORK, "version: 7", "no playbook child version 7 is registered", 1),
        (BROKEN, "retry: 2", "`nothing` is undefined: no input, step with a result or workload key has that name", 2),
        ("workflow: 5", "retry: false", "playbook child does not compile", 1),
        (WORK, "return_step: nowhere", "the parent asks for the data of step nowhere", 1),
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
