"""`metadata.on_failure`: a failed execution starts another one, in the transaction of its end."""

from __future__ import annotations

from noetl_broker.broker.model.values import JSON
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database

ALARM = 'on_failure: {path: ops/alarm, args: {team: "{{ workload.team }}"}}'
FAILS = """
workload: {team: shop}
workflow:
- {step: start, next: a}
- {step: a, type: http, url: x}
"""
NOTIFY = """
workflow:
- {step: start, next: tell}
- {step: tell, type: http, url: "http://ops/{{ workload.team }}/{{ workload.error.message }}"}
"""
STATES = "select path, status, error ->> 'message' from noetl.execution order by execution_id"


async def fail_jobs(database: Database) -> None:
    """Lease all jobs and fail each."""
    await execute(
        database,
        "select noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"no\"}') from noetl.lease_jobs('w', 9)",
    )
    await drain(database)


async def failed(database: Database, *, payload: JSON = None) -> int:
    """Start `story` and let its only job fail; return its id."""
    [execution_id] = await start(database, payload=payload)
    await drain(database)
    await fail_jobs(database)
    return execution_id


async def test_a_failed_execution_starts_its_playbook(database: Database) -> None:
    """With what failed and its args. It is no child, and the key says which failure it is about."""
    await register(database, FAILS, metadata=ALARM)
    await register(database, NOTIFY, path="ops/alarm")
    execution_id = await failed(database)
    assert await value(database, "select action::jsonb ->> 'url' from noetl.queue where status = 'queued'") == (
        "http://ops/shop/no"
    )
    [alarm] = await rows(
        database,
        "select workload - 'error', parent_execution_id, idempotency_key from noetl.execution where path = 'ops/alarm'",
    )
    workload = {"team": "shop", "execution_id": execution_id, "path": "story", "step": "a"}
    assert alarm == (workload, None, f"on_failure {execution_id}")
    await complete_jobs(database)
    await drain(database)
    assert await rows(database, STATES) == [("story", "FAILED", "no"), ("ops/alarm", "COMPLETED", None)]
    assert await inconsistencies(database) == {}


async def test_an_alarm_that_fails_raises_no_alarm(database: Database) -> None:
    """Nor does its retry."""
    await register(database, FAILS, metadata=ALARM)
    await register(database, NOTIFY, path="ops/alarm", metadata=ALARM)
    await failed(database)
    await fail_jobs(database)
    assert await rows(database, STATES) == [("story", "FAILED", "no"), ("ops/alarm", "FAILED", "no")]

    await execute(
        database,
        "select noetl.fork_execution(execution_id, $1) from noetl.execution where path = 'ops/alarm'",
        {"results": []},
    )
    await drain(database)
    meta = "select meta -> 'on_failure' from noetl.event where event_type = 'execution_start' and meta ? 'forked_from'"

    assert await value(database, meta) == await value(
        database, "select execution_id from noetl.execution where path = 'story'"
    )
