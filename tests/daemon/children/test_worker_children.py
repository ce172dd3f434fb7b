"""Children that a worker started: in any order, the parent gets each answer exactly once."""

from __future__ import annotations

import asyncio

import pytest

from noetl_broker.broker.model.values import JSON
from noetl_broker.store.connect.connection import connect
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
from tests.sessions import blocked

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
ANNOUNCE = """
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
    """Announced before or after they ended, in any order; results are gathered by index."""
    parent = await _parent(database)
    early, late = await _children(database, 2)
    await execute(database, ANNOUNCE, parent, late, 1)
    await complete_jobs(database, {"started": 2})
    await drain(database)
    assert await rows(database, RESULT, parent) == [("COMPLETED", [1], None)]

    [parent] = await start(database)
    await drain(database)
    early, late = await _children(database, 2)
    await drain(database)
    await execute(database, ANNOUNCE, parent, late, 1)
    await execute(database, ANNOUNCE, parent, early, 0)
    await drain(database)
    assert await rows(database, RESULT, parent) == [("RUNNING", None, None)]
    await complete_jobs(database, {"started": 2})
    await drain(database)
    assert await rows(database, RESULT, parent) == [("COMPLETED", [0, 1], None)]
    assert await broken_invariants(database) == {}


@pytest.mark.parametrize("batches", ["one", "many"])
async def test_children_without_an_index_get_one_place_each(database: Database, batches: str) -> None:
    """The next free index. A child that is announced again, as after a lost answer, keeps its own."""
    parent = await _parent(database)
    children = await _children(database, 3)
    await execute(database, "select noetl.lease_jobs('w')")
    for child in (*children, children[0], children[2]):
        assert await value(database, WAIT, child) is True
        if child == children[0]:
            await execute(database, ANNOUNCE, parent, children[1], 5)
        if batches == "many":
            await drain(database)
    await execute(database, "select noetl.complete_job(queue_id, 'w', attempts) from noetl.queue")
    await drain(database)
    assert await rows(database, RESULT, parent) == [("COMPLETED", [0, 1, 2], None)]
    adopted = "select index, child_execution_id from noetl.iteration order by index"
    assert await rows(database, adopted) == [*zip((0, 5, 6), children, strict=True)]
    assert await broken_invariants(database) == {}


async def test_a_childs_result_that_looks_like_an_envelope_is_not_unwrapped(database: Database) -> None:
    """The child ended before its parent's worker announced it."""
    parent = await _parent(database)
    gave = {"id": 1, "status": "error", "data": {"n": 1}}
    [child] = await start(database, "child", {"n": gave})
    await drain(database)
    await execute(database, ANNOUNCE, parent, child, 0)
    await complete_jobs(database)
    await drain(database)
    assert await rows(database, RESULT, parent) == [("COMPLETED", [gave], None)]
    assert await broken_invariants(database) == {}


async def test_a_parent_waits_for_an_announced_child_that_has_not_started(database: Database) -> None:
    """The worker announced it before its start event existed; the start fills in its row."""
    parent = await _parent(database)
    await execute(database, ANNOUNCE, parent, 77, 0)
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
async def test_a_child_that_cannot_be_adopted_fails_the_step(database: Database, of: str) -> None:
    """A child has one parent, and is neither its own ancestor nor an execution that it waits for."""
    parent = await _parent(database)
    [child] = await _children(database, 1)
    [other] = await start(database)
    await drain(database)
    if of != "itself":
        await execute(database, ANNOUNCE, other, child if of == "another parent" else parent, 0)
        await drain(database)
    wanted = {"another parent": child, "itself": parent, "its own parent": other}[of]
    await execute(database, ANNOUNCE, parent, wanted, 0)
    await drain(database)
    message = "it is not to be had: another execution waits for it"
    assert await rows(database, RESULT, parent) == [("FAILED", None, message)]


ADOPTED = "select count(*) filter (where status = 'FAILED'), count(*) from noetl.execution"


async def test_two_executions_that_adopt_each_other_in_one_transaction_both_end(database: Database) -> None:
    """The first adopts the second. The second cannot adopt the first and fails, and so does the waiting step."""
    await _parent(database)
    await start(database)
    first, second = [row[0] for row in await rows(database, "select execution_id from noetl.execution order by 1")]
    await drain(database)
    await execute(database, ANNOUNCE, first, second, 0)
    await execute(database, ANNOUNCE, second, first, 0)
    assert (await drain(database, batch_size=2)).metrics.largest_batch == 2
    assert await rows(database, ADOPTED) == [(2, 2)]
    assert await broken_invariants(database) == {}


async def test_many_executions_that_adopt_each_other_at_once_all_end(database: Database) -> None:
    """Two brokers, one mail a batch: neither sees uncommitted adoptions of the other."""
    await register(database, PARENT)
    ids = await start(database, count=40)
    await drain(database)
    for first, second in zip(ids[::2], ids[1::2], strict=True):
        await execute(database, ANNOUNCE, first, second, 0)
        await execute(database, ANNOUNCE, second, first, 0)
    async with running(database, batch_size=1), running(database, batch_size=1):
        await until_ended(database)
    assert await rows(database, ADOPTED) == [(40, 40)]
    assert await broken_invariants(database) == {}


async def test_a_parent_that_adopts_a_child_during_its_end_gets_its_answer(database: Database) -> None:
    """The broker of the child saw no parent; its write waits for the transaction that adopts the child."""
    parent = await _parent(database)
    await complete_jobs(database)
    [child] = await _children(database, 1)
    writer = await connect(database, name="test")
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
            await blocked(writer)
        await asyncio.wait_for(draining, PATIENCE_SECONDS)
    finally:
        await writer.close()
    letters = "select count(*) from noetl.event where execution_id = $1 and event_type = 'execution_complete'"
    where = " and meta ->> 'child_execution_id' = $2::text"
    assert await value(database, letters + where, parent, str(child)) == 1


async def test_many_parents_and_children_end_in_any_order(database: Database) -> None:
    """Two brokers. Children end while their parents adopt them: every parent gathers every child."""
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
    """One worker's attempt at the parent's job: start four children, announce each, complete."""
    connection = await connect(database, name="test")
    queued = asyncio.Event()
    await connection.add_listener("noetl_job", lambda *_: queued.set())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await connection.fetchval("select count(*) from noetl.queue where execution_id = $1", parent):
                await queued.wait()
                queued.clear()
        for n in range(4):
            child = await connection.fetchval("select noetl.start_execution('child', $1)", {"n": n})
            await connection.execute(ANNOUNCE, parent, child, n)
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
        {"message": "", "type": None, "child_step": "x", "child_at": "y"},
    ],
)
async def test_a_failed_child_gives_the_same_answer_before_and_after_its_adoption(
    database: Database, error: JSON
) -> None:
    """The answer made in SQL equals the broker's: the type of the cause, and the child as the place."""
    failing = CHILD.replace("next: end}", "next: a}\n- {step: a, type: python, code: x, next: end}", 1)
    broken = failing.replace("next: end}", 'next: [{when: "{{ a.b.c }}", step: end}]}')
    fail = "select noetl.fail_job(queue_id, 'w', attempts, $1) from noetl.lease_jobs('w', 9) where node_name = 'a'"
    complete = fail.replace("fail_job", "complete_job").replace("$1", "'{}'")
    errors = "select error from noetl.event where execution_id = $1 and meta ?& array['child_execution_id', 'attempt']"
    for path, body, end, arguments in (("failing", failing, fail, [error]), ("broken", broken, complete, [])):
        answers = []
        await register(database, body, path=path)
        for ends_first in (False, True):
            if not await value(database, "select count(*) from noetl.catalog where path = 'story'"):
                await register(database, PARENT)
            [parent] = await start(database)
            [child] = await start(database, path)
            await drain(database)
            await execute(database, *((end, *arguments) if ends_first else (ANNOUNCE, parent, child, 0)))
            await drain(database)
            await execute(database, *((ANNOUNCE, parent, child, 0) if ends_first else (end, *arguments)))
            await drain(database)
            [(answer,)] = await rows(database, errors, parent)
            assert answer.pop("child_execution_id") == child
            answers.append(answer)
        assert answers[0] == answers[1]
        assert path == "failing" or "child_at" in answers[0]
