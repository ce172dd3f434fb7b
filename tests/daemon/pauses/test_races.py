"""Pause against completion, and resume against cancel: two brokers, and both at the same moment."""

from __future__ import annotations

import asyncio

from tests.brokers import drain, execute, register, rows, start
from tests.consistency import inconsistencies
from tests.postgres import Database
from tests.sessions import session

STORY = """
workflow:
  - {step: start, next: a}
  - {step: a, type: python, code: "def main(): ...", next: b}
  - {step: b, type: wait, for: 0, next: end}
  - {step: end}
"""
ROUNDS = 12


async def settle(database: Database) -> None:
    """Let two brokers read all mail."""
    await asyncio.gather(drain(database), drain(database))


async def both(database: Database, first: str, second: str, execution_id: int) -> None:
    """Commit two statements about an execution at the same moment, beside a broker."""

    async def commit(statement: str) -> None:
        async with session(database) as connection, connection.transaction():
            await connection.execute(statement, execution_id)

    await asyncio.gather(commit(first), commit(second), drain(database))


async def test_a_pause_beside_a_completion_loses_nothing(database: Database) -> None:
    """The execution is paused before or after its action ended; the resume completes it."""
    await register(database, STORY)
    completion = """
        select noetl.complete_job(q.queue_id, 'w', q.attempts, '1')
        from noetl.queue q
        where q.execution_id = $1"""
    for _ in range(ROUNDS):
        (execution_id,) = await start(database)
        await settle(database)
        await execute(database, "select noetl.lease_jobs('w', 9)")
        await both(database, completion, "select noetl.pause_execution($1)", execution_id)
        await settle(database)
        await execute(database, "select noetl.resume_execution($1)", execution_id)
        await settle(database)
    assert await rows(database, "select distinct status from noetl.execution") == [("COMPLETED",)]
    assert await inconsistencies(database) == {}


async def test_a_cancel_beside_a_resume_cancels(database: Database) -> None:
    """Whichever is read first."""
    await register(database, STORY)
    for _ in range(ROUNDS):
        (execution_id,) = await start(database)
        await execute(database, "select noetl.pause_execution($1)", execution_id)
        await settle(database)
        resume, cancel = "select noetl.resume_execution($1)", "select noetl.cancel_execution($1)"
        await both(database, resume, cancel, execution_id)
        await settle(database)
    assert await rows(database, "select distinct status from noetl.execution") == [("CANCELLED",)]
    assert await rows(database, "select distinct status from noetl.queue") == [("cancelled",)]
    assert await inconsistencies(database) == {}
