"""The limits of an execution: each ends the execution that exceeds it, by name, and no other."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from noetl_broker.broker.model.rules import Rules
from noetl_broker.store.connect.connection import connect
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database

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


async def test_a_turn_that_exceeds_max_fan_out_leaves_no_job(database: Database) -> None:
    """The jobs of that turn are cancelled in the same transaction."""
    await register(database, WIDE, path="wide")
    await register(database, SHORT, path="short")
    await start(database, "wide")
    await start(database, "short")
    await drain(database, rules=Rules(max_fan_out=2))
    assert await complete_jobs(database, 1) == 1
    await drain(database)
    assert await rows(database, ENDED) == [("short", "COMPLETED", None), ("wide", "FAILED", "max_fan_out")]
    assert await inconsistencies(database) == {}


async def test_limits_are_pinned_when_an_execution_starts(database: Database) -> None:
    """A daemon with a smaller limit goes on with the larger one."""
    await register(database, LOOP, path="loop")
    await start(database, "loop")
    await drain(database, rules=Rules(max_turns=50))
    for _ in range(4):
        await complete_jobs(database, 1)
        await drain(database, rules=Rules(max_turns=1))
    assert await value(database, "select status from noetl.execution") == "RUNNING"


async def test_a_result_above_the_limit_is_refused_and_the_job_stays_leased(database: Database) -> None:
    """NB400 names the size and the limit, however well the value compresses. One byte less is accepted."""
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
    assert await inconsistencies(database) == {}


async def test_a_large_result_is_accepted_with_a_warning(database: Database) -> None:
    """Above 256 KiB, in the server's log and to the caller."""
    await register(database, SHORT)
    await start(database)
    await drain(database)
    connection = await connect(database, name="test")
    heard: list[str] = []
    connection.add_log_listener(lambda _, notice: heard.append(notice.message))
    try:
        [job] = await connection.fetch("select queue_id from noetl.lease_jobs('w', 1)")
        complete = "select noetl.complete_job($1, 'w', 1, to_jsonb(repeat('x', 262143)))"
        assert await connection.fetchval(complete, job["queue_id"])
        await asyncio.sleep(0)  # the event loop calls the log listener
    finally:
        await connection.close()
    assert heard == [f"the result of job {job['queue_id']} takes 262145 bytes; the limit is 2097152"]


async def test_an_inserted_result_above_the_limit_fails_its_attempt(database: Database) -> None:
    """The turn that reads it decides so, and a replay agrees."""
    await register(database, SHORT)
    await start(database)
    await drain(database)
    await execute(database, SENT, LIMIT - 1)
    await drain(database)
    assert await rows(database, ENDED) == [("story", "FAILED", "max_result_bytes")]
    message = "the result takes 2097153 bytes; the limit max_result_bytes is 2097152"
    assert await value(database, "select error ->> 'message' from noetl.execution") == message
    assert await inconsistencies(database) == {}
