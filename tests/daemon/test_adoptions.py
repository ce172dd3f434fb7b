"""Children that a worker started, for real: whoever comes first, the parent hears of each end exactly once."""

from __future__ import annotations

import asyncio

import pytest

from noetl_broker.broker.model import JSON
from noetl_broker.store.pool import connect
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
    until_ended,
    value,
)
from tests.postgres import Database

PARENT = """
workflow:
- {step: start, next: fan}
- {step: fan, type: python, code: x, next: end}
- {step: end, result: "{{ fan }}"}
"""
CHILD = """
workload: {n: 0}
workflow:
- {step: start, next: end}
- {step: end, result: "{{ workload.n }}"}
"""
TELL = """
insert into noetl.event (execution_id, event_type, node_id, node_name, context)
select $1::bigint, 'iteration_started', $1::bigint || ':fan', 'fan',
  jsonb_build_object('child_execution_id', $2::bigint, 'index', $3::int)"""
WAIT = "select noetl.wait_for_child(queue_id, 'w', attempts, $1) from noetl.queue"
RESULT = "select status, result, error ->> 'message' from noetl.execution where execution_id = $1"


async def _parent(database: Database) -> int:
    await register(database, PARENT)
    await register(database, CHILD, path="child")
    [parent] = await start(database)
    await drain(database)
    return parent


async def _children(database: Database, count: int) -> list[int]:
    return [child for n in range(count) for child in await start(database, "child", {"n": n})]


async def test_the_parent_waits_for_the_children_that_its_worker_started(database: Database) -> None:
    """Told before or after they ended, in any order; their results are gathered by index."""
    parent = await _parent(database)
    early, late = await _children(database, 2)
    await execute(database, TELL, parent, late, 1)
    await complete_jobs(database, {"started": 2})
    await drain(database)
    assert await rows(database, RESULT, parent) == [("COMPLETED", [1], None)]

    [parent] = await start(database)
    await drain(database)
    early, late = await _children(database, 2)
    await drain(database)
    await execute(database, TELL, parent, late, 1)
    await execute(database, TELL, parent, early, 0)
    await drain(database)
    assert await rows(database, RESULT, parent) == [("RUNNING", None, None)]
    await complete_jobs(database, {"started": 2})
    await drain(database)
    assert await rows(database, RESULT, parent) == [("COMPLETED", [0, 1], None)]
    assert await broken_invariants(database) == {}


@pytest.mark.parametrize("batches", ["one", "many"])
async def test_children_without_an_index_take_one_place_each(database: Database, batches: str) -> None:
    """The next above those that are taken; one that is told of again, as after a lost answer, has its own."""
    parent = await _parent(database)
    children = await _children(database, 3)
    await execute(database, "select noetl.lease_jobs('w')")
    for child in (*children, children[0], children[2]):
        assert await value(database, WAIT, child) is True
        if child == children[0]:
            await execute(database, TELL, parent, children[1], 5)
        if batches == "many":
            await drain(database)
    await execute(database, "select noetl.complete_job(queue_id, 'w', attempts) from noetl.queue")
    await drain(database)
    assert await rows(database, RESULT, parent) == [("COMPLETED", [0, 1, 2], None)]
    places = "select place, child_execution_id from noetl.iteration order by place"
    assert await rows(database, places) == [*zip((0, 5, 6), children, strict=True)]
    assert await broken_invariants(database) == {}


async def test_a_childs_result_that_looks_like_an_envelope_is_gathered_whole(database: Database) -> None:
    """Of a child that had ended when its parent's worker told of it."""
    parent = await _parent(database)
    gave = {"id": 1, "status": "bad", "data": {"n": 1}}
    [child] = await start(database, "child", {"n": gave})
    await drain(database)
    await execute(database, TELL, parent, child, 0)
    await complete_jobs(database)
    await drain(database)
    assert await rows(database, RESULT, parent) == [("COMPLETED", [gave], None)]
    assert await broken_invariants(database) == {}


async def test_a_child_that_nobody_has_heard_of_yet_is_waited_for(database: Database) -> None:
    """The worker told of it before the event that starts it was there; its start fills in what it is."""
    parent = await _parent(database)
    await execute(database, TELL, parent, 77, 0)
    await complete_jobs(database)
    await drain(database)
    assert await rows(database, RESULT, parent) == [("RUNNING", None, None)]
    await execute(
        database,
        """insert into noetl.event (execution_id, event_type, context)
        values (77, 'execution_start', '{"path": "child", "workload": {"n": 7}}')""",
    )
    await drain(database)
    assert await rows(database, RESULT, parent) == [("COMPLETED", [7], None)]
    assert await rows(database, "select path, status from noetl.execution where execution_id = 77") == [
        ("child", "COMPLETED")
    ]
    assert await broken_invariants(database) == {}


@pytest.mark.parametrize("of", ["another parent", "itself", "its own parent"])
async def test_a_child_that_is_not_to_be_had_fails_the_step(database: Database, of: str) -> None:
    """An execution answers to one parent, and never to itself; nor to what it waits for, or none of them would end."""
    parent = await _parent(database)
    [child] = await _children(database, 1)
    [other] = await start(database)
    await drain(database)
    if of != "itself":
        await execute(database, TELL, other, child if of == "another parent" else parent, 0)
        await drain(database)
    wanted = {"another parent": child, "itself": parent, "its own parent": other}[of]
    await execute(database, TELL, parent, wanted, 0)
    await drain(database)
    message = "it is not to be had: another execution waits for it"
    assert await rows(database, RESULT, parent) == [("FAILED", None, message)]


ADOPTED = "select count(*) filter (where status = 'FAILED'), count(*) from noetl.execution"


async def test_two_that_adopt_each_other_in_one_transaction_both_end(database: Database) -> None:
    """The first has the second; the second cannot have the first, fails, and so does the step that waits for it."""
    await _parent(database)
    await start(database)
    first, second = [row[0] for row in await rows(database, "select execution_id from noetl.execution order by 1")]
    await drain(database)
    await execute(database, TELL, first, second, 0)
    await execute(database, TELL, second, first, 0)
    assert (await drain(database, batch_size=2)).counters.largest_batch == 2
    assert await rows(database, ADOPTED) == [(2, 2)]
    assert await broken_invariants(database) == {}


async def test_many_that_adopt_each_other_at_one_moment_all_end(database: Database) -> None:
    """Two brokers, one mail at a time: nobody sees what the other has not committed."""
    await register(database, PARENT)
    ids = await start(database, count=40)
    await drain(database)
    for first, second in zip(ids[::2], ids[1::2], strict=True):
        await execute(database, TELL, first, second, 0)
        await execute(database, TELL, second, first, 0)
    async with running(database, batch_size=1), running(database, batch_size=1):
        await until_ended(database)
    assert await rows(database, ADOPTED) == [(40, 40)]
    assert await broken_invariants(database) == {}


async def test_cancelling_the_parent_cancels_the_children_that_its_worker_started(database: Database) -> None:
    """They are its children like those that the broker started."""
    parent = await _parent(database)
    [child] = await start(database)  # its job is never done
    await drain(database)
    await execute(database, TELL, parent, child, 0)
    await drain(database)
    await execute(database, "select noetl.cancel_execution($1)", parent)
    await drain(database)
    statuses = await rows(database, "select status from noetl.execution order by execution_id")
    assert statuses == [("CANCELLED",), ("CANCELLED",)]
    assert await broken_invariants(database) == {}


async def test_a_parent_that_adopts_a_child_at_the_moment_of_its_end_hears_of_it(database: Database) -> None:
    """The broker of the child saw no parent, and waits with its write for the transaction that gives it one."""
    parent = await _parent(database)
    await complete_jobs(database)
    [child] = await _children(database, 1)
    writer = await connect(database.dsn, name="test")
    try:
        async with writer.transaction():
            await writer.execute(
                """update noetl.execution
                set parent_execution_id = $2::bigint, parent_node_id = $2::bigint || ':fan', parent_index = 0
                where execution_id = $1""",
                child,
                parent,
            )
            draining = asyncio.create_task(drain(database))
            await _until_somebody_waits_for_a_lock(database)
        await asyncio.wait_for(draining, PATIENCE_SECONDS)
    finally:
        await writer.close()
    letters = "select count(*) from noetl.event where execution_id = $1 and event_type = 'execution_complete'"
    where = " and meta ->> 'child_execution_id' = $2::text"
    assert await value(database, letters + where, parent, str(child)) == 1


async def _until_somebody_waits_for_a_lock(database: Database) -> None:
    """Ask the database until it says so: there is no signal for it."""
    waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await value(database, waiting):
            pass


async def test_many_parents_and_children_meet_in_any_order(database: Database) -> None:
    """Two brokers, children that end while their parents hear of them: every parent gathers every child."""
    await register(database, PARENT)
    await register(database, CHILD, path="child")
    async with running(database), running(database):
        parents = await start(database, count=20)
        await asyncio.gather(*(_work_for(database, parent) for parent in parents))
        await until_ended(database)
    results = "select result, count(*) from noetl.execution where path = 'story' group by result"
    assert await rows(database, results) == [([0, 1, 2, 3], 20)]
    assert await broken_invariants(database) == {}


async def _work_for(database: Database, parent: int) -> None:
    """One worker's attempt at the parent's job: start four children, tell of each, be done."""
    connection = await connect(database.dsn, name="test")
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await connection.fetchval("select count(*) from noetl.queue where execution_id = $1", parent):
                pass
        for n in range(4):
            child = await connection.fetchval("select noetl.start_execution('child', $1)", {"n": n})
            await connection.execute(TELL, parent, child, n)
        await connection.execute(
            """insert into noetl.event (execution_id, event_type, node_id, node_name, result)
            values ($1::bigint, 'action_completed', $1::bigint || ':fan', 'fan', '{}')""",
            parent,
        )
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "error",
    [
        {"message": "busy", "type": "HTTPError", "status_code": 503},
        {"message": "no"},
        {"message": "", "type": None, "child_step": "x", "child_at": "y"},
    ],
)
async def test_a_child_that_failed_is_told_of_alike_before_and_after_its_end(database: Database, error: JSON) -> None:
    """The answer that is made in SQL has what the broker's has: the cause's type, and the place as the child's."""
    failing = CHILD.replace("next: end}", "next: a}\n- {step: a, type: python, code: x, next: end}", 1)
    broken = failing.replace("next: end}", 'next: [{when: "{{ a.b.c }}", step: end}]}')
    fail = "select noetl.fail_job(queue_id, 'w', attempts, $1) from noetl.lease_jobs('w', 9) where node_name = 'a'"
    complete = fail.replace("fail_job", "complete_job").replace("$1", "'{}'")
    errors = "select error from noetl.event where execution_id = $1 and meta ?& array['child_execution_id', 'attempt']"
    for path, body, end, arguments in (("failing", failing, fail, [error]), ("broken", broken, complete, [])):
        told = []
        await register(database, body, path=path)
        for ends_first in (False, True):
            if not await value(database, "select count(*) from noetl.catalog where path = 'story'"):
                await register(database, PARENT)
            [parent] = await start(database)
            [child] = await start(database, path)
            await drain(database)
            await execute(database, *((end, *arguments) if ends_first else (TELL, parent, child, 0)))
            await drain(database)
            await execute(database, *((TELL, parent, child, 0) if ends_first else (end, *arguments)))
            await drain(database)
            [(answer,)] = await rows(database, errors, parent)
            assert answer.pop("child_execution_id") == child
            told.append(answer)
        assert told[0] == told[1]
        assert path == "failing" or "child_at" in told[0]
