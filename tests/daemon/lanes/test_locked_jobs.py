"""Jobs that are locked while they are cancelled: no turn waits for them, and none stays in the queue."""

from __future__ import annotations

import asyncio

import pytest

from tests.brokers import PATIENCE_SECONDS, broken_invariants, complete_jobs, drain, register, start, value
from tests.postgres import Database
from tests.sessions import session

FORK = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: end}
- {step: b, type: python, code: x, next: end}
- {step: end}
"""
ITEMS = """
workflow:
- step: start
  next: each
- step: each
  type: python
  code: x
  on_error: continue
  loop: {collection: "{{ [1, 2] }}", element: one, mode: async, distribute: true}
  next: last
- {step: last, type: python, code: x, next: end}
- {step: end}
"""
LEASE = "select queue_id from noetl.lease_jobs($1)"
FAIL = "select noetl.fail_job($1, 'other', 1, '{\"message\": \"boom\"}', false)"
STATUS = "select status from noetl.queue where queue_id = $1"


@pytest.mark.parametrize("playbook, ended", [(FORK, "FAILED"), (ITEMS, "RUNNING")], ids=["execution", "item"])
@pytest.mark.parametrize("end, status", [("rollback", "cancelled"), ("commit", "leased")])
async def test_no_turn_waits_for_an_uncommitted_lease(
    database: Database, playbook: str, ended: str, end: str, status: str
) -> None:
    """The reaper cancels the job later, or tells its worker to stop. The answer of the worker is recorded."""
    await register(database, playbook)
    await start(database)
    await drain(database)
    async with session(database) as holder, session(database) as own:
        await holder.execute("begin")
        held = await holder.fetchval(LEASE, "slow")
        await own.execute(FAIL, await own.fetchval(LEASE, "other"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await drain(database)
        assert await value(database, "select status from noetl.execution") == ended
        await own.execute("select noetl.reap(9, 5)")
        assert await broken_invariants(database, ignore=["every execution ended"]) == {}
        assert await own.fetchval(STATUS, held) == "queued"
        await holder.execute(end)
        await own.execute("select noetl.reap(9, 5)")
        assert await own.fetchval(STATUS, held) == status
        assert await own.fetchval("select count(*) from noetl.job_to_cancel") == 0
        if end == "commit":
            assert await own.fetchval("select noetl.complete_job($1, 'slow', 1)", held)
    assert await complete_jobs(database) == (ended == "RUNNING")
    await drain(database)
    assert await broken_invariants(database) == {}
