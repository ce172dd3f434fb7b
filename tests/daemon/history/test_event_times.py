"""The times of an execution's events increase, whatever the clocks of their writers."""

from __future__ import annotations

import pytest

from tests.brokers import complete_jobs, drain, execute, register, rows, start
from tests.postgres import Database

FORK = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: c}
- {step: b, type: python, code: x, next: end}
- {step: c, type: python, code: x, next: end}
- {step: end}
"""
ANSWER = """
    insert into noetl.event (execution_id, event_type, node_id, node_name, created_at, result)
    select q.execution_id, 'action_completed', q.node_id, q.node_name, $2::text::timestamptz, '{"ok": true}'
    from noetl.queue q
    where q.node_name = $1"""
MOMENTS = """
    with times as (
      select t.turn, t.decided_at, e.created_at as cause, greatest(t.decided_at, max(w.created_at)) as last
      from noetl.turn t
      join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
      left join noetl.event w on w.execution_id = t.execution_id and w.parent_event_id = t.event_id
      group by t.execution_id, t.turn, e.execution_id, e.event_id
    )
    select turn, decided_at > cause, decided_at > lag(last) over (order by turn), last
    from times
    order by turn"""


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
async def test_a_turn_is_later_than_all_earlier_events(database: Database, *, together: bool) -> None:
    """A worker's clock is a thousand years ahead; then a right one follows."""
    await register(database, FORK)
    await start(database)
    await drain(database)
    await execute(database, ANSWER, "a", "2999-01-01")
    if not together:
        await drain(database)
    await execute(database, ANSWER, "b", "now")
    metrics = (await drain(database)).metrics
    assert metrics.largest_batch == (2 if together else 1)
    await complete_jobs(database)
    await drain(database)
    times = await rows(database, MOMENTS)
    assert [(turn, later, grows) for turn, later, grows, _ in times] == [
        (1, True, None), (2, True, True), (3, True, True), (4, True, True)
    ]  # fmt: skip
    assert await rows(database, "select last_at from noetl.execution_state") == [(times[-1][-1],)]
    assert await rows(database, "select status from noetl.execution") == [("COMPLETED",)]
