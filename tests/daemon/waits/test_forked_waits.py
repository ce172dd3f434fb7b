"""A retry or a fork takes over waits: open ones keep their moment, ended ones their result."""

from __future__ import annotations

from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.service.recoveries import recover_failed
from noetl_broker.store.admin.history import load_history
from noetl_broker.store.connect.connection import connect
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database

STORY = """
workflow:
- {step: start, next: [cool, work]}
- {step: cool, type: wait, for: 3d, next: end}
- {step: work, type: python, code: x, next: now}
- {step: now, type: wait, for: 0, next: fin}
- {step: fin, type: python, code: x, args: {at: "{{ now.waited_until }}", same: "{{ result }}"}, next: end}
- {step: end, result: "{{ cool.waited_until }}"}
"""
FAIL = "select noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"no\"}') from noetl.lease_jobs('w')"


async def retry(database: Database, execution_id: int) -> int:
    """Retry a failed execution; return the new one."""
    connection = await connect(database, name="test")
    try:
        new = int((await recover_failed(connection, execution_id, PlaybookRules()))["recovered_as"])
        await drain(database)
        assert (await load_history(connection, new, PlaybookRules())).broken is None
    finally:
        await connection.close()
    return new


async def test_a_retried_wait_keeps_its_moment_and_ended_ones_their_results(database: Database) -> None:
    """Also where a retry is retried."""
    await register(database, STORY)
    [execution_id] = await start(database)
    await drain(database)
    due = await value(database, "select due_at from noetl.timer")
    await complete_jobs(database, 1)
    for _ in range(2):
        await drain(database)
        job = await rows(database, "select action::jsonb -> 'args' from noetl.queue where node_name = 'fin'")
        await execute(database, FAIL)
        await drain(database)
        assert await rows(database, "select * from noetl.timer") == []
        execution_id = await retry(database, execution_id)
        assert await rows(database, "select execution_id, due_at from noetl.timer") == [(execution_id, due)]
        again = "select action::jsonb -> 'args' from noetl.queue where node_name = 'fin' and execution_id = $1"
        assert await rows(database, again, execution_id) == job[-1:]
    await complete_jobs(database, 1)
    await execute(database, "update noetl.timer set due_at = clock_timestamp()")
    await drain(database)
    statuses = await rows(database, "select status, count(*) from noetl.execution group by 1 order by 1")
    assert statuses == [("COMPLETED", 1), ("FAILED", 2)]
    assert await inconsistencies(database) == {}


async def test_a_retry_opens_an_approval_again_and_keeps_decisions(database: Database) -> None:
    """The open one with its timeout; the decision of the other one is a result that the retry takes over."""
    await register(
        database,
        """
        workflow:
        - {step: start, next: [open, decided]}
        - {step: open, type: approval, title: "Order {{ execution_id }}", timeout: 3d, next: end}
        - {step: decided, type: approval, next: work}
        - {step: work, type: python, code: x, args: {by: "{{ decided.by }}"}, next: end}
        - {step: end, result: {open: "{{ open.by }}", decided: "{{ decided.by }}"}}
        """,
    )
    decide = (
        "select noetl.decide_approval(execution_id, node_id, true, $1) from noetl.pending_approvals where step = $2"
    )
    [execution_id] = await start(database)
    await drain(database)
    due = await value(database, "select times_out_at from noetl.pending_approvals where step = 'open'")
    await rows(database, decide, "ann", "decided")
    await drain(database)
    await execute(database, FAIL)
    await drain(database)
    assert await rows(database, "select * from noetl.pending_approvals") == []
    again = await retry(database, execution_id)
    assert await rows(database, "select execution_id, step, title, times_out_at from noetl.pending_approvals") == [
        (again, "open", f"Order {again}", due)
    ]
    assert await rows(database, decide, "bob", "open") == [(True,)]
    await complete_jobs(database, 1)
    await drain(database)
    login = await value(database, "select 'login:' || session_user")
    result = await value(database, "select result from noetl.execution where status = 'COMPLETED'")
    assert result == {"open": login, "decided": login}
    assert await inconsistencies(database) == {}
