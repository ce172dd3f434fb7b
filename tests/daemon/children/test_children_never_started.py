"""Children that a worker announced, that never started, and that are cancelled."""

from __future__ import annotations

import asyncio

from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.daemon.children.test_late_children import FAIL, PATIENT, START, WHERE
from tests.daemon.children.test_worker_children import ANNOUNCE, CHILD
from tests.postgres import Database
from tests.sessions import blocked, session

CANCEL = "select noetl.cancel_execution(77, 'not wanted')"
OUTCOME = """
select status, error ->> 'type', error ->> 'message', error ->> 'child_execution_id'
from noetl.event
where node_name = 'fan' and event_type = 'step_failed'"""


async def _announce(database: Database) -> int:
    """Let a worker announce child 77 and die."""
    await register(database, PATIENT)
    await register(database, CHILD, path="child")
    [parent] = await start(database)
    await drain(database)
    await execute(database, ANNOUNCE, parent, 77, 0)
    await drain(database)
    return parent


async def test_a_child_that_was_never_started_can_be_cancelled(database: Database) -> None:
    """The step of its parent gets the answer of a cancelled child. A later start is too late."""
    parent = await _announce(database)
    assert await value(database, CANCEL) is True
    assert await rows(database, WHERE) == [("CANCELLED", True, None)]
    assert await value(database, CANCEL) is False
    await drain(database)
    assert await rows(database, OUTCOME) == [("FAILED", "child_cancelled", "not wanted", "77")]
    await complete_jobs(database)
    await drain(database)
    assert await value(database, "select status from noetl.execution where execution_id = $1", parent) == "COMPLETED"
    assert await broken_invariants(database) == {}
    await execute(database, START)
    await drain(database)
    assert await rows(database, WHERE) == [("CANCELLED", True, "story")]
    reason = "select error ->> 'message' from noetl.execution where execution_id = 77"
    assert await value(database, reason) == "not wanted"
    assert await broken_invariants(database) == {}


async def test_a_cancel_of_a_child_that_never_started_sends_a_notification(database: Database) -> None:
    """Whichever role calls it."""
    parent = await _announce(database)
    async with session(database) as own:
        await own.execute("set noetl.writer = 'broker'")
        assert await own.fetchval(CANCEL) is True
        assert await own.fetchval("show noetl.writer") == "broker"
    assert await rows(database, "select execution_id from noetl.inbox") == [(parent,)]


async def test_a_child_that_starts_during_its_cancel_is_cancelled_by_the_broker(database: Database) -> None:
    """The cancel waits for the start, and finds the child running."""
    await _announce(database)
    await execute(database, START)
    async with session(database) as other:
        async with other.transaction():
            [claimed] = await other.fetch("select execution_id, locked from noetl.take_mail(9, false, 0)")
            assert tuple(claimed) == (77, True)
            cancelling = asyncio.create_task(value(database, CANCEL))
            await blocked(other)
        assert await cancelling is True
    assert await rows(database, WHERE) == [("RUNNING", False, "story")]
    await drain(database)
    assert await rows(database, WHERE) == [("CANCELLED", True, "story")]
    await complete_jobs(database)
    await drain(database)
    assert await broken_invariants(database) == {}


async def test_a_child_whose_parent_ends_during_its_cancel_has_ended(database: Database) -> None:
    """The cancel waits for the parent's turn, and nothing is left to cancel."""
    parent = await _announce(database)
    async with session(database) as other:
        async with other.transaction():
            await other.execute("select pg_advisory_xact_lock($1)", parent)
            cancelling = asyncio.create_task(value(database, CANCEL))
            await blocked(other)
            await other.execute("update noetl.execution set status = 'CANCELLED' where execution_id = 77")
        assert await cancelling is False
    assert await value(database, "select count(*) from noetl.inbox") == 0


async def test_a_cancel_of_many_children_blocks_no_broker(database: Database) -> None:
    """A broker leaves the parent's mail for later: both would write the rows of the children."""
    parent = await _announce(database)
    await execute(database, ANNOUNCE, parent, 78, 1)
    await drain(database)
    await execute(database, FAIL)
    async with session(database) as other, other.transaction():
        assert await other.fetchval(CANCEL) is True
        claim = "select execution_id, locked from noetl.take_mail(9, false, 0)"
        assert await rows(database, claim) == [(parent, False)]
        assert await other.fetchval("select noetl.cancel_execution(78)") is True
    await drain(database)
    children = "select status from noetl.execution where execution_id in (77, 78)"
    assert await rows(database, children) == [("CANCELLED",), ("CANCELLED",)]
    await complete_jobs(database)
    await drain(database)
    assert await broken_invariants(database) == {}
