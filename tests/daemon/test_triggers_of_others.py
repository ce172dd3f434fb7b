"""Triggers that somebody puts on our tables, which call our functions while the broker writes."""

from __future__ import annotations

import pytest

from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database

STORY = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: b}
- {step: b, type: python, code: x, next: end}
- {step: end}
"""
CALLS = {
    "start": "perform noetl.start_execution('after');",
    "cancel": "perform noetl.cancel_execution(noetl.start_execution('after'));",
    "lease": "perform from noetl.lease_jobs('theirs', 1, 60, array['none']);",
    "complete": "perform noetl.complete_job(0, 'theirs', 1);",
    "wait": "perform noetl.wait_for_child(q.queue_id, q.worker_id, q.attempts, 77) from noetl.lease_jobs('theirs') q;",
    "fork": "perform noetl.fork_execution(new.execution_id, '{\"results\": []}');",
}
ON_END = "after update of status on noetl.execution for each row when (new.status = 'COMPLETED' and new.path = 'story')"
ON_EVENT = "after insert on noetl.event for each row when (new.event_type = 'step_completed' and new.node_name = 'a')"
READ = """
select e.event_type
from noetl.turn t
join noetl.event e using (execution_id, event_id)
where e.meta ? 'turn'"""


@pytest.mark.parametrize("when", [ON_END, ON_EVENT], ids=["as it ends", "at an event"])
@pytest.mark.parametrize("call", CALLS)
async def test_what_the_broker_writes_is_no_mail_where_a_trigger_calls_our_functions(
    database: Database, call: str, when: str
) -> None:
    """What the function writes is; after it the transaction is the broker's as before."""
    await register(database, STORY)
    await register(database, "workflow: [{step: start}]", path="after")
    await execute(
        database,
        f"create function public.theirs() returns trigger language plpgsql as $$begin {CALLS[call]} return null; end$$;"
        f" create trigger theirs {when} execute function public.theirs()",
    )
    await start(database, count=3)
    for _ in range(3):
        await drain(database)
        await complete_jobs(database)
    assert await rows(database, READ) == []
    if call == "start":
        assert await value(database, "select count(*) from noetl.execution where path = 'after'") == 3
        assert await broken_invariants(database) == {}
