"""Children that start, or are announced, after their parent went on without them."""

from __future__ import annotations

import asyncio

import pytest

from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin.verify import VerifyScope, verify
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.queries import sql
from tests.brokers import (
    PATIENCE_SECONDS,
    broken_invariants,
    complete_jobs,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    value,
)
from tests.chaos.under_load import leave_core
from tests.daemon.children.test_worker_children import ANNOUNCE, CHILD, PARENT
from tests.postgres import Database
from tests.sessions import session

PATIENT = """
workflow:
- {step: start, next: fan}
- {step: fan, type: python, code: x, on_error: continue, next: more}
- {step: more, type: python, code: x, next: end}
- {step: end}
"""

START = """
insert into noetl.event (execution_id, event_type, context)
values (77, 'execution_start', '{"path": "story"}')"""
FAIL = """select noetl.fail_job(queue_id, 'w', attempts, '{"message": "boom"}') from noetl.lease_jobs('w')"""


@pytest.mark.parametrize("how", ["cancelled", "given up"])
async def test_a_child_that_starts_after_its_parent_went_on_is_cancelled(database: Database, how: str) -> None:
    """It was announced but not started, so it could not be cancelled earlier."""
    await register(database, PATIENT)
    await register(database, CHILD, path="child")
    [parent] = await start(database)
    await drain(database)
    await execute(database, ANNOUNCE, parent, 77, 0)
    await drain(database)
    if how == "cancelled":
        await execute(database, "select noetl.cancel_execution($1)", parent)
    else:
        await execute(database, FAIL)
    await drain(database)
    await execute(database, START)
    async with session(database) as other:
        await other.execute("select noetl.take_mail(9, false, 0)")
    assert (
        await value(database, "select status from noetl.execution where execution_id = 77") == "RUNNING"
    )  # until then
    await drain(database)
    assert await rows(database, "select status from noetl.execution where execution_id = 77") == [("CANCELLED",)]
    if how == "given up":
        await complete_jobs(database)
        await drain(database)
    assert await broken_invariants(database) == {}


async def _run_until_mail_waits(database: Database) -> None:
    """Run a daemon until it meets mail that it may not decide yet."""
    async with running(database) as service, asyncio.timeout(PATIENCE_SECONDS):
        while not service.metrics.total(metric.LOCK_MISSES):
            await leave_core()


WHERE = "select status, ended_at is not null, path from noetl.execution where execution_id = 77"


@pytest.mark.parametrize("how", ["cancelled", "given up"])
async def test_a_child_that_is_never_started_ends_with_its_parent(database: Database, how: str) -> None:
    """Its worker died between the announcement and the start."""
    await register(database, PATIENT)
    [parent] = await start(database)
    await drain(database)
    await execute(database, ANNOUNCE, parent, 77, 0)
    await drain(database)
    assert await rows(database, WHERE) == [("RUNNING", False, None)]
    if how == "cancelled":
        await execute(database, "select noetl.cancel_execution($1)", parent)
    else:
        await execute(database, FAIL)
        await drain(database)
        await complete_jobs(database)
    await drain(database)
    assert await rows(database, WHERE) == [("CANCELLED", True, None)]
    assert await value(database, "select noetl.cancel_execution(77)") is False
    assert await broken_invariants(database) == {}
    async with session(database) as own:
        report = await verify(own, VerifyScope(execution_id=77), deep=PlaybookRules())
        assert [v.examples for v in report.verdicts if v.broken] == []
        assert await own.fetch(sql("living_in_period"), 0, 2**62, 9) == []


async def test_a_child_that_starts_while_its_parent_goes_on_without_it_is_cancelled(database: Database) -> None:
    """The turn of the parent waits for the start, and sees the child."""
    await register(database, PATIENT)
    [parent] = await start(database)
    await drain(database)
    await execute(database, ANNOUNCE, parent, 77, 0)
    await drain(database)
    await execute(database, START)
    async with session(database) as other, other.transaction():
        [claimed] = await other.fetch("select execution_id, locked from noetl.take_mail(9, false, 0)")
        assert tuple(claimed) == (77, True)
        await execute(database, FAIL)
        await _run_until_mail_waits(database)
    await drain(database)
    assert await rows(database, WHERE) == [("CANCELLED", True, "story")]
    await complete_jobs(database)
    await drain(database)
    assert await broken_invariants(database) == {}


async def test_a_child_of_a_failed_parent_is_cancelled_at_its_start(database: Database) -> None:
    """Children of a completed parent go on."""
    await register(database, PARENT)
    [cancelled, completed] = await start(database, count=2)
    await drain(database)
    await execute(database, "select noetl.cancel_execution($1)", cancelled)
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    for child, parent in enumerate((cancelled, completed), 77):
        await execute(
            database,
            """insert into noetl.event (execution_id, parent_execution_id, event_type, context)
            values ($1, $2, 'execution_start', '{"path": "story"}')""",
            child,
            parent,
        )
    await drain(database)
    statuses = "select status from noetl.execution where execution_id in (77, 78) order by execution_id"
    assert await rows(database, statuses) == [("CANCELLED",), ("RUNNING",)]


async def test_a_failure_waits_for_an_earlier_announcement_of_a_child(database: Database) -> None:
    """Otherwise the next attempt would wait for the child of the failed one."""
    await register(database, PARENT.replace("code: x,", "code: x, retry: {max_attempts: 2, initial_delay: 0},"))
    [parent] = await start(database)
    await drain(database)
    holder = await connect(database, name="test")
    try:
        [job] = await holder.fetch("select queue_id, attempts from noetl.lease_jobs('w')")
        await holder.execute("select noetl.wait_for_child($1, 'w', 1, 77)", job["queue_id"])
        async with holder.transaction():
            await holder.fetch("select from noetl.inbox for update")
            await execute(
                database,
                """select noetl.fail_job($1, 'w', 1, '{"message": "boom"}')""",
                job["queue_id"],
            )
            await _run_until_mail_waits(database)  # the failure stays in the inbox
    finally:
        await holder.close()
    await drain(database)
    order = """
    select e.event_type
    from noetl.turn t
    join noetl.event e using (execution_id, event_id)
    where t.execution_id = $1
    order by t.turn"""
    assert [kind for (kind,) in await rows(database, order, parent)][1:3] == ["iteration_started", "action_failed"]


NAMED = """
insert into noetl.event (execution_id, parent_execution_id, event_type, context)
values ($2, $1, 'execution_start', '{"path": "story"}')"""
CLAIM = "select execution_id, locked from noetl.take_mail(2, false, 0) order by mail_id"


async def test_the_end_of_a_parent_waits_for_a_start_that_names_it(database: Database) -> None:
    """The starter saw the parent running, so the end must see the child."""
    await register(database, PARENT)
    [parent] = await start(database)
    await drain(database)
    await execute(database, NAMED, parent, 77)
    async with session(database) as other, other.transaction():
        [claimed] = await other.fetch(CLAIM)
        assert tuple(claimed) == (77, True)
        await execute(database, "select noetl.cancel_execution($1)", parent)
        await _run_until_mail_waits(database)
    await drain(database)
    assert await rows(database, WHERE) == [("CANCELLED", True, "story")]
    assert await broken_invariants(database) == {}


async def test_a_start_waits_for_the_end_of_its_parent(database: Database) -> None:
    """The end cannot see the child, so the start must see the end."""
    await register(database, PARENT)
    [parent] = await start(database)
    await drain(database)
    await execute(database, "select noetl.cancel_execution($1)", parent)
    async with session(database) as other, other.transaction():
        [claimed] = await other.fetch(CLAIM)
        assert tuple(claimed) == (parent, True)
        await other.execute("update noetl.execution set status = 'CANCELLED' where execution_id = $1", parent)
        await execute(database, NAMED, parent, 77)
        await _run_until_mail_waits(database)
    await drain(database)
    assert await rows(database, WHERE) == [("CANCELLED", True, "story")]


async def _claims(database: Database) -> list[list[tuple[object, ...]]]:
    """Give the mail that each of two brokers claims, two mails a claim; the first still holds its claim."""
    async with session(database) as one, one.transaction():
        return [[tuple(row) for row in await one.fetch(CLAIM)], await rows(database, CLAIM)]


async def test_brokers_that_start_children_of_each_others_parents_do_not_deadlock(
    database: Database,
) -> None:
    """Without one order of locks, each would hold one parent and wait for the other's."""
    await register(database, PARENT)
    first, second = await start(database, count=2)
    await drain(database)
    for child, parent, other in ((77, first, second), (78, second, first)):
        await execute(database, NAMED, parent, child)
        await execute(database, "select noetl.cancel_execution($1)", other)
    assert await _claims(database) == [[(77, True), (second, True)], [(78, False), (first, False)]]
    await drain(database)
    assert await rows(database, "select distinct status from noetl.execution") == [("CANCELLED",)]
    assert await broken_invariants(database) == {}


@pytest.mark.parametrize("first", ["starts", "words"])
async def test_brokers_that_start_and_adopt_the_same_children_do_not_deadlock(database: Database, first: str) -> None:
    """In any order: both write the rows of the children, and the starts lock the parents too."""
    await register(database, PARENT)
    parents = await start(database, count=2)
    await drain(database)
    pairs = [*zip(parents, (78, 77), strict=True)]
    for kind in ("starts", "words") if first == "starts" else ("words", "starts"):
        for parent, child in pairs:
            await execute(database, *((NAMED, parent, child) if kind == "starts" else (ANNOUNCE, parent, child, 0)))
    children = [child for _, child in pairs]
    one, other = (children, parents) if first == "starts" else (parents, children)
    assert await _claims(database) == [[(who, True) for who in one], [(who, False) for who in other]]
    await drain(database)
    adopted = "select parent_execution_id, execution_id from noetl.execution where parent_node_id <> '' order by 1"
    assert await rows(database, adopted) == pairs


async def test_many_brokers_start_children_of_one_parent_at_once(database: Database) -> None:
    """No broker writes the parent's row."""
    await register(database, PARENT)
    [parent] = await start(database)
    await drain(database)
    for child in range(77, 81):
        await execute(database, NAMED, parent, child)
    assert await _claims(database) == [[(77, True), (78, True)], [(79, True), (80, True)]]


async def test_a_completion_waits_while_another_broker_holds_the_child(database: Database) -> None:
    """The announcement of the child waits, and so does the completion after it."""
    await register(database, PARENT)
    await register(database, CHILD, path="child")
    [parent], [child] = await start(database), await start(database, "child")
    await drain(database)
    await execute(database, ANNOUNCE, parent, child, 0)
    await complete_jobs(database)
    async with session(database) as holder, holder.transaction():
        await holder.execute("select pg_advisory_xact_lock($1)", child)
        assert await rows(database, CLAIM) == [(parent, False), (parent, False)]
    await drain(database)
    assert await rows(database, "select result from noetl.execution where execution_id = $1", parent) == [([0],)]
    assert await broken_invariants(database) == {}
