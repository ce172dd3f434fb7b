"""Triggers that somebody puts on our tables, which call our functions while the broker writes."""

from __future__ import annotations

import pytest

from noetl_broker.errors import DatabaseFault
from noetl_broker.store.jobs import Completion, JobDatabase, LeasedJob, lease_jobs
from noetl_broker.store.jobs import complete_jobs as complete
from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database

STORY = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: b}
- {step: b, type: python, code: x, next: end}
- {step: end}
"""
FAN = """
workflow:
- {step: start, next: [a, b, c]}
- {step: a, type: python, code: x}
- {step: b, type: python, code: x, retry: {max_attempts: 3, initial_delay: 0}}
- {step: c, type: python, code: x}
"""
REFUSE = """
create function public.refuse() returns trigger language plpgsql as $$begin raise 'not %', new.node_name; end$$;
create trigger refuse {} insert on noetl.event
for each row when (new.event_type in ({}) and new.node_name = 'b') execute function public.refuse()"""
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


async def _lease(own: JobDatabase) -> list[LeasedJob]:
    """As a worker of ours does."""
    return await lease_jobs(own, worker_id="w", max_jobs=9, lease_seconds=60, node_types=None)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_job_whose_start_is_refused_fails_alone(database: Database, when: str) -> None:
    """The others are leased, and its execution ends by the broker's decision."""
    await register(database, FAN)
    await start(database)
    await drain(database)
    await execute(database, REFUSE.format(when, "'action_started'"))
    async with JobDatabase(database.dsn, application_name="test") as own:
        jobs = await _lease(own)
        assert [job.node_name for job in jobs] == ["a", "c"]
        assert set((await complete(own, "w", [Completion(job.lease) for job in jobs])).values()) == {True}
        await drain(database)
        assert await _lease(own) == []
    [(status, error)] = await rows(database, "select status, error from noetl.execution")
    assert status == "FAILED"
    assert error == {
        "step": "b",
        "type": "refused_start",
        "message": "the database refused the start of the action: not b",
    }
    assert await rows(database, "select node_name, status, attempts from noetl.queue order by 1") == [
        ("a", "done", 1),
        ("b", "dead", 1),
        ("c", "done", 1),
    ]
    assert await broken_invariants(database) == {}


async def test_a_trigger_that_fails_over_the_start_of_a_job_fails_that_alone(database: Database) -> None:
    """It refuses nothing by itself: it cannot work with a value of it."""
    await register(database, FAN)
    await start(database)
    await drain(database)
    await execute(database, REFUSE.format("before", "'action_started'"))
    later = "create or replace function public.refuse() returns trigger language plpgsql as "
    await execute(database, later + "$$begin perform new.node_name::int; return new; end$$")
    async with JobDatabase(database.dsn, application_name="test") as own:
        assert [job.node_name for job in await _lease(own)] == ["a", "c"]
    assert await value(database, "select status from noetl.queue where node_name = 'b'") == "failed"


async def test_a_job_whose_failure_is_refused_too_is_put_off(database: Database) -> None:
    """It keeps nobody from the others, and comes back when the trigger is gone."""
    await register(database, FAN)
    await start(database)
    await drain(database)
    await execute(database, REFUSE.format("before", "'action_started', 'action_failed'"))
    async with JobDatabase(database.dsn, application_name="test") as own:
        assert [job.node_name for job in await _lease(own)] == ["a", "c"]
        assert await _lease(own) == []
        await execute(database, "drop function public.refuse cascade")
        await execute(database, "update noetl.queue set available_at = now() where available_at > now()")
        assert [(job.node_name, job.attempt) for job in await _lease(own)] == [("b", 1)]


async def test_another_error_of_a_lease_is_told(database: Database) -> None:
    """One that may pass: nothing fails for it."""
    await register(database, FAN)
    await start(database)
    await drain(database)
    await execute(database, REFUSE.format("before", "'action_started'"))
    later = "create or replace function public.refuse() returns trigger language plpgsql as "
    await execute(database, later + "$$begin raise using errcode = '53100', message = 'full'; end$$")
    async with JobDatabase(database.dsn, application_name="test") as own:
        with pytest.raises(DatabaseFault, match="full"):
            await _lease(own)
    assert await value(database, "select count(*) from noetl.queue where status = 'queued'") == 3
