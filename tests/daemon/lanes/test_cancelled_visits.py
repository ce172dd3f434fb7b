"""The jobs of cancelled visits: none stays in the queue, and a worker that has one is told to stop."""

from __future__ import annotations

import pytest

from noetl_broker.store.queries import sql
from tests.brokers import drain, execute, register, rows, start
from tests.postgres import Database
from tests.sessions import session

BODY = """
workflow:
- {step: start, next: [a, each]}
- {step: a, type: python, code: x, retry: 2}
- step: each
  type: iterator
  collection: [1, 2]
  element: one
  mode: async
  distribute: true
  task: {type: python, code: x}
"""
JOBS = "select substring(node_id from ':(.*)') as node, status, stop from noetl.queue order by node"
LEASE = "select from noetl.lease_jobs('w', 9)"
CLOSE = "select execution_id, execution_id || ':' || unnest(array['a', 'each']) from noetl.execution"


async def close(database: Database, *, own: bool) -> None:
    """Cancel both visits, or (without `own`) cancel their items only."""
    found = await rows(database, CLOSE)
    async with session(database) as connection:
        await connection.execute(sql("cancel_visits"), *map(list, zip(*found, strict=True)), [own] * len(found))


@pytest.mark.parametrize("kept", [{}, {"a": "queued", "each": "delegated"}], ids=["cancelled", "gave up its items"])
async def test_queued_jobs_are_cancelled(database: Database, kept: dict[str, str]) -> None:
    """Of cancelled visits and of their items; a visit that cancels its items keeps its own job."""
    await register(database, BODY)
    await start(database)
    await drain(database)
    await close(database, own=not kept)
    assert await rows(database, JOBS) == [
        (node, kept.get(node, "cancelled"), False) for node in ("a", "each", "each#1.0", "each#1.1")
    ]


async def test_leased_jobs_stop_and_are_not_queued_again(database: Database) -> None:
    """A lease that is lost ends the job."""
    await register(database, BODY)
    await start(database)
    await drain(database)
    await execute(database, LEASE)
    await close(database, own=True)
    leased = [("leased", True), ("cancelled", False), ("leased", True), ("leased", True)]
    assert [row[1:] for row in await rows(database, JOBS)] == leased
    await execute(database, "update noetl.queue set lease_until = '2000-01-01' where status = 'leased'")
    await execute(database, "select noetl.reap(9, 5)")
    assert [row[1] for row in await rows(database, JOBS)] == ["cancelled"] * 4


async def test_a_job_that_is_locked_is_cancelled_by_the_reaper(database: Database) -> None:
    """A worker is just leasing it: it is told to stop later."""
    await register(database, BODY)
    await start(database)
    await drain(database)
    async with session(database) as worker:
        await worker.execute("begin")
        await worker.execute(LEASE)
        await close(database, own=True)
        await worker.execute("commit")
    assert [row[1:] for row in await rows(database, JOBS)] == [
        ("leased", False), ("cancelled", False), ("leased", False), ("leased", False),
    ]  # fmt: skip
    await execute(database, "select noetl.reap(9, 5)")
    assert [row[1:] for row in await rows(database, JOBS)] == [
        ("leased", True), ("cancelled", False), ("leased", True), ("leased", True),
    ]  # fmt: skip
