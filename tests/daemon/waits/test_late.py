"""`late_after` in the database: the timers, the mark, and what `on_late` starts."""

from __future__ import annotations

from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database

WORK = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: http, url: x, late_after: 2h}
- {step: b, type: wait, signal: paid, late_after: 3h}
"""
ALARM = "late_after: 1h, on_late: {path: ops/late, args: {team: shop}}"
TELL = "workflow:\n- {step: start, next: tell}\n- {step: tell, type: http, url: x}"
LATER = "update noetl.timer set due_at = due_at - interval '2 hours', created_at = created_at - interval '2 hours'"


async def test_late_executions_and_visits_start_an_alarm(database: Database) -> None:
    """Each once; the execution goes on. What is in time leaves no timer behind."""
    await register(database, WORK, metadata=ALARM)
    await register(database, TELL, path="ops/late")
    [execution_id] = await start(database)
    await drain(database)
    timers = "select node_id is null, step, purpose from noetl.timer order by due_at"
    assert await rows(database, timers) == [(True, None, "late"), (False, "a", "late"), (False, "b", "late")]
    await execute(database, LATER)
    await drain(database)
    events = "select event_type, node_name from noetl.event where event_type like '%late' order by event_id"
    assert await rows(database, events) == [("execution_late", "story"), ("step_late", "a")]
    alarms = (
        "select workload ->> 'step', idempotency_key from noetl.execution where path = 'ops/late' order by execution_id"
    )
    assert await rows(database, alarms) == [(None, f"on_late {execution_id}"), ("a", f"on_late {execution_id} a")]
    late = "select status, late_at is not null from noetl.execution where path = 'story'"
    assert await rows(database, late) == [("RUNNING", True)]
    assert [name for name in await broken_invariants(database) if name.startswith("I")] == []
    await complete_jobs(database)
    await execute(database, "select noetl.send_signal('paid', $1, '{}')", str(execution_id))
    await drain(database)
    assert await value(database, "select count(*) from noetl.timer") == 0
    assert await rows(database, late) == [("COMPLETED", True)]
    assert await inconsistencies(database) == {}
