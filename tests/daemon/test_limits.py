"""The bounds of an execution, for real: each ends the execution that passes it, by name, and no other."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from noetl_broker.broker.model import Rules
from noetl_broker.store import jobs as answers
from noetl_broker.store.jobs import Completion, JobDatabase, RefusedFault, lease_jobs
from noetl_broker.store.pool import connect
from noetl_broker.worker.report import refusal
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.settled import unsettled

LOOP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: a}
"""
WIDE = """
workflow:
- {step: start, next: [a, b, c]}
- {step: a, type: python, code: x}
- {step: b, type: python, code: x}
- {step: c, type: python, code: x}
"""
SHORT = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x}
"""
SENT = """
insert into noetl.event (execution_id, event_type, node_id, node_name, status, result)
select execution_id, 'action_completed', node_id, node_name, 'COMPLETED', to_jsonb(repeat('x', $1))
from noetl.lease_jobs('by hand', 1)"""
LIMIT = 2 << 20  # the quotes around a text count
ENDED = "select path, status, error ->> 'type' from noetl.execution order by path"


async def test_an_execution_without_an_end_ends_after_its_last_turn(database: Database) -> None:
    """A loop that no condition leaves; the execution beside it is not touched."""
    await register(database, LOOP, path="loop")
    await register(database, SHORT, path="short")
    await start(database, "loop")
    await start(database, "short")
    rules = Rules(max_turns=5)
    await drain(database, rules=rules)
    while await complete_jobs(database, 1):
        await drain(database, rules=rules)
    assert await rows(database, ENDED) == [("loop", "FAILED", "max_turns"), ("short", "COMPLETED", None)]
    assert await unsettled(database) == {}


async def test_a_turn_that_is_too_wide_leaves_no_job_behind(database: Database) -> None:
    """The jobs that the turn began with are taken back in the same transaction."""
    await register(database, WIDE, path="wide")
    await register(database, SHORT, path="short")
    await start(database, "wide")
    await start(database, "short")
    await drain(database, rules=Rules(max_fan_out=2))
    assert await complete_jobs(database, 1) == 1
    await drain(database)
    assert await rows(database, ENDED) == [("short", "COMPLETED", None), ("wide", "FAILED", "max_fan_out")]
    assert await unsettled(database) == {}


async def test_the_bounds_of_an_execution_are_those_of_its_start(database: Database) -> None:
    """A daemon with a smaller limit goes on with what began under the larger one."""
    await register(database, LOOP, path="loop")
    await start(database, "loop")
    await drain(database, rules=Rules(max_turns=50))
    for _ in range(4):
        await complete_jobs(database, 1)
        await drain(database, rules=Rules(max_turns=1))
    assert await value(database, "select status from noetl.execution") == "RUNNING"


async def test_a_result_past_the_limit_is_refused_by_name_and_the_job_stays_leased(database: Database) -> None:
    """NB400 says size and limit; however well the value could be compressed. One byte less is taken."""
    await register(database, SHORT)
    await start(database)
    await drain(database)
    [(job,)] = await rows(database, "select queue_id from noetl.lease_jobs('w', 1)")
    complete = "select noetl.complete_job($1, 'w', 1, to_jsonb(repeat('x', $2)))"
    with pytest.raises(asyncpg.PostgresError) as refused:
        await execute(database, complete, job, LIMIT - 1)
    message = f"the result of job {job} takes 2097153 bytes; the limit max_result_bytes is 2097152"
    assert (refused.value.sqlstate, str(refused.value).splitlines()[0]) == ("NB400", message)
    assert await value(database, "select status from noetl.queue") == "leased"
    assert await value(database, complete, job, LIMIT - 2)
    await drain(database)
    assert await rows(database, ENDED) == [("story", "COMPLETED", None)]
    assert await unsettled(database) == {}


async def test_a_large_result_is_taken_with_a_warning(database: Database) -> None:
    """The server's log and the caller hear of it past 256 KiB."""
    await register(database, SHORT)
    await start(database)
    await drain(database)
    connection = await connect(database.dsn, name="test")
    heard: list[str] = []
    connection.add_log_listener(lambda _, notice: heard.append(notice.message))
    try:
        [job] = await connection.fetch("select queue_id from noetl.lease_jobs('w', 1)")
        complete = "select noetl.complete_job($1, 'w', 1, to_jsonb(repeat('x', 262143)))"
        assert await connection.fetchval(complete, job["queue_id"])
        await asyncio.sleep(0)  # listeners are called by the loop
    finally:
        await connection.close()
    assert heard == [f"the result of job {job['queue_id']} takes 262145 bytes; past 2097152 it is refused"]


async def test_a_result_past_the_limit_that_was_inserted_by_hand_fails_its_attempt(database: Database) -> None:
    """It is in the table already: the turn that reads it accounts for it, and a replay decides the same."""
    await register(database, SHORT)
    await start(database)
    await drain(database)
    await execute(database, SENT, LIMIT - 1)
    await drain(database)
    assert await rows(database, ENDED) == [("story", "FAILED", "max_result_bytes")]
    message = "the result takes 2097153 bytes; the limit max_result_bytes is 2097152"
    assert await value(database, "select error ->> 'message' from noetl.execution") == message
    assert await unsettled(database) == {}


async def test_the_worker_fails_the_job_of_a_result_past_the_limit(database: Database) -> None:
    """In its name, and without a second attempt."""
    await register(database, SHORT)
    await start(database)
    await drain(database)
    jobs = JobDatabase(database.dsn, application_name="test")
    [job] = await lease_jobs(jobs, worker_id="w", max_jobs=1, lease_seconds=60, node_types=None)
    completion = Completion(job.lease, json.dumps("x" * LIMIT))
    with pytest.raises(RefusedFault) as refused:
        await answers.complete_jobs(jobs, "w", [completion])
    await answers.fail_jobs(jobs, "w", [refusal(completion, refused.value)])
    await jobs.close()
    await drain(database)
    assert await rows(database, ENDED) == [("story", "FAILED", "max_result_bytes")]
    assert await unsettled(database) == {}
