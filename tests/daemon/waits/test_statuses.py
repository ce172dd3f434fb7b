"""Signals, decisions and timeouts of executions that are queued or paused, or that a cancel ends meanwhile."""

from __future__ import annotations

from tests.brokers import drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database

WAITING = """
workflow:
- {step: start, next: [paid, work]}
- {step: paid, type: wait, signal: payment, timeout: 1d, next: approve}
- {step: work, type: python, code: x, next: late}
- {step: late, type: wait, signal: extra, next: end}
- {step: approve, type: approval, timeout: 1d, form: {discount: {type: number}}, next: end}
- {step: end, result: {paid: "{{ paid }}", by: "{{ approve.by }}", late: "{{ late }}"}}
"""
STATUSES = "select status from noetl.execution order by execution_id"
SIGNAL = "select noetl.signal_execution($1, $2, $3::text::jsonb)"


async def test_a_cancel_ends_what_queued_and_paused_executions_wait_for(database: Database) -> None:
    """No wait, timer or request is left, and later calls say that they have ended."""
    await register(database, WAITING)
    running, paused = await start(database, count=2)
    await drain(database)
    await execute(database, "select noetl.pause_execution($1), noetl.pause_path('story')", paused)
    (queued,) = await start(database)
    await drain(database)
    assert await rows(database, STATUSES) == [("RUNNING",), ("PAUSED",), ("QUEUED",)]
    for execution_id in (running, paused, queued):
        await execute(database, "select noetl.cancel_execution($1)", execution_id)
        assert await value(database, SIGNAL, execution_id, "payment", "5") is not None
    await drain(database)
    assert await rows(database, STATUSES) == [("CANCELLED",)] * 3
    assert await rows(database, "select distinct status from noetl.wait") == [("cancelled",)]
    left = "select (select count(*) from noetl.timer), (select count(*) from noetl.match_request)"
    assert await rows(database, left) == [(0, 0)]
    late = "select noetl.pause_execution($1), noetl.resume_execution($1), noetl.cancel_execution($1)"
    assert await rows(database, late, paused) == [(False, False, False)]
    assert await value(database, SIGNAL, queued, "payment", "5") is None
    assert await inconsistencies(database) == {}
