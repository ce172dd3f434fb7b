"""Leased jobs whose result nobody wants: heartbeats are false, answers still count, lost leases end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.brokers import broken_invariants, drain, register, rows, start, value
from tests.postgres import Database
from tests.sessions import Session, listen, session
from tests.store.test_reaper import age, reap

LEASE = "select queue_id, attempts from noetl.lease_jobs('w', 10)"
HEARTBEAT = "select noetl.heartbeat_job($1, 'w', 1)"
COMPLETE = "select noetl.complete_job($1, 'w', 1, '{\"rows\": 3}')"
FAIL = "select noetl.fail_job($1, 'w', 1, '{\"message\": \"stopped\"}')"
CANCEL = "select noetl.cancel_execution(execution_id) from noetl.execution where parent_execution_id is null"
JOB = "select status, stop from noetl.queue where queue_id = $1"
STATUS = "select status from noetl.queue where queue_id = $1"
ONE = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, timeout: 60, next: end}
- {step: end}
"""
TWO = """
workflow:
- {step: start, next: [work, other]}
- {step: work, type: python, code: x, next: end}
- {step: other, type: http, next: end}
- {step: end}
"""


async def lease_one(database: Database, own: Session[Any], body: str) -> int:
    """Start an execution and lease its job `work`, which is the only one; return its queue_id."""
    await register(database, body)
    await start(database)
    await drain(database)
    [job] = await own.fetch(LEASE)
    return int(job["queue_id"])


@pytest.mark.parametrize(
    "answer, status, event",
    [(COMPLETE, "done", "action_completed"), (FAIL, "cancelled", "action_failed")],
)
async def test_a_cancelled_execution_stops_its_worker_and_records_its_answer(
    database: Database, answer: str, status: str, event: str
) -> None:
    """The heartbeat is false and does not extend the lease, and there is no timeout: the job is cancelled.

    The answer is true, also when it is repeated, and changes nothing. A failure needs no decision.
    """
    async with session(database) as own:
        job = await lease_one(database, own, ONE)
        assert await own.fetchval(HEARTBEAT, job) is True
        until = await own.fetchval("select lease_until from noetl.queue")
        await own.execute(CANCEL)
        await drain(database)
        assert await own.fetchval(HEARTBEAT, job) is False
        assert await own.fetchval("select lease_until from noetl.queue") == until
        await age(own, 61)
        assert await reap(own) == {}
        assert await own.fetchrow(JOB, job) == ("leased", True)
        assert [await own.fetchval(answer, job) for _ in range(2)] == [True, True]
        await drain(database)
        assert await own.fetchval(STATUS, job) == status
    ended = "select event_type from noetl.event where event_type ~ '_(completed|failed)$'"
    assert await rows(database, ended) == [(event,)]
    assert await value(database, "select outcome from noetl.turn order by turn desc limit 1") == "after_end"
    assert await broken_invariants(database) == {}


async def test_a_timeout_stops_the_worker_and_the_retry_has_a_new_lease(database: Database) -> None:
    """The heartbeat of the new attempt is true."""
    async with session(database) as own, session(database) as listener:
        await register(database, ONE.replace("timeout: 60", "timeout: 60, retry: {initial_delay: 0}"))
        await start(database)
        await drain(database)
        [job] = await own.fetch(LEASE)
        told = await listen(listener, "noetl_cancel")
        await age(own, 61)
        assert await reap(own) == {"timed_out": 1}
        assert await told() == ""
        assert await own.fetchval(HEARTBEAT, job["queue_id"]) is False
        await drain(database)
        [again] = await own.fetch(LEASE)
        assert await own.fetchval("select noetl.heartbeat_job($1, 'w', 2)", again["queue_id"]) is True


async def test_a_failure_stops_the_other_branches(database: Database) -> None:
    """`other` fails, and so the execution."""
    async with session(database) as own, session(database) as listener:
        await register(database, TWO)
        await start(database)
        await drain(database)
        jobs = dict(await own.fetch("select node_name, queue_id from noetl.lease_jobs('w', 10)"))
        told = await listen(listener, "noetl_cancel")
        await own.execute(FAIL, jobs["other"])
        await drain(database)
        assert await told() == ""
        assert await own.fetchval(HEARTBEAT, jobs["work"]) is False
        assert await own.fetchrow(JOB, jobs["other"]) == ("dead", False)
    assert await broken_invariants(database) == {}


async def test_workers_are_notified_only_where_a_leased_job_was_cancelled(database: Database) -> None:
    """The first cancel ends a queued job, the second one a leased job."""
    await register(database, ONE)
    async with session(database) as own, session(database) as listener:
        told: list[str] = []
        await listener.add_listener("noetl_cancel", lambda *_: told.append("cancel"))
        await start(database)
        await drain(database)
        await own.execute(CANCEL)
        await drain(database)
        await listener.execute("select")
        assert told == []
        await start(database, count=3)
        await drain(database)
        await own.execute(LEASE)
        await own.execute(CANCEL)
        await drain(database)
        await listener.execute("select")
        assert told == ["cancel"]


async def test_a_job_that_is_leased_while_its_execution_ends_is_stopped_by_the_reaper(database: Database) -> None:
    """The turn does not wait for the lease, whose transaction is open."""
    await register(database, ONE)
    await start(database)
    await drain(database)
    async with session(database) as own, session(database) as other, session(database) as listener:
        lease = own.transaction()
        await lease.start()
        [job] = await own.fetch(LEASE)
        await other.execute(CANCEL)
        await drain(database)
        await lease.commit()
        assert await own.fetchval(HEARTBEAT, job["queue_id"]) is True
        told = await listen(listener, "noetl_cancel")
        await reap(other)
        assert await told() == ""
        assert await own.fetchval(HEARTBEAT, job["queue_id"]) is False
        assert await own.fetchrow(JOB, job["queue_id"]) == ("leased", True)
    assert await broken_invariants(database) == {}
