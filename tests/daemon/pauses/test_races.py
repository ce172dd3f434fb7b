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
COUNT = 12  # executions, for each of which two statements meet


async def settle(database: Database) -> None:
    """Let two brokers read all mail."""
    await asyncio.gather(drain(database), drain(database))


async def both(database: Database, first: str, second: str, executions: list[int]) -> None:
    """Commit two statements about each execution at about the same moment, beside a broker."""

    async def commit(statement: str) -> None:
        async with session(database) as connection:
            for execution_id in executions:
                async with connection.transaction():
                    await connection.execute(statement, execution_id)

    committing = asyncio.gather(commit(first), commit(second))
    while not committing.done():
        await drain(database)
    await committing


async def test_a_pause_beside_a_completion_loses_nothing(database: Database) -> None:
    """Each execution is paused before or after its action ended; the resume completes it."""
    await register(database, STORY)
    completion = """
        select noetl.complete_job(q.queue_id, 'w', q.attempts, '1')
        from noetl.queue q
        where q.execution_id = $1"""
    executions = await start(database, count=COUNT)
    await settle(database)
    await execute(database, "select noetl.lease_jobs('w', 99)")
    await both(database, completion, "select noetl.pause_execution($1)", executions)
    await settle(database)
    await execute(database, "select noetl.resume_execution(id) from unnest($1::bigint[]) id", executions)
    await settle(database)
    assert await rows(database, "select status, count(*) from noetl.execution group by 1") == [("COMPLETED", COUNT)]
    assert await inconsistencies(database) == {}


async def test_a_cancel_beside_a_resume_cancels(database: Database) -> None:
    """Whichever is read first."""
    await register(database, STORY)
    executions = await start(database, count=COUNT)
    await execute(database, "select noetl.pause_execution(id) from unnest($1::bigint[]) id", executions)
    await settle(database)
    await both(database, "select noetl.resume_execution($1)", "select noetl.cancel_execution($1)", executions)
    await settle(database)
    assert await rows(database, "select status, count(*) from noetl.execution group by 1") == [("CANCELLED", COUNT)]
    assert await rows(database, "select distinct status from noetl.queue") == [("cancelled",)]
    assert await inconsistencies(database) == {}
