"""`{{ it.failed }}` on a real database: gathered in SQL, copied to forks, and used by another iterator."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from noetl_broker.worker import WorkerOptions, run_worker
from tests.brokers import drain, execute, register, rows, running, start, until_ended, value
from tests.consistency import inconsistencies
from tests.daemon.history.test_forks import answer, differences, fork, retry_execution
from tests.postgres import Database

EACH = """
workload: {items: [1, 2, 3]}
workflow:
- {step: start, next: it}
- step: it
  type: iterator
  collection: "{{ workload.items }}"
  element: n
  mode: async
  concurrency: 100000
  on_error: continue
  MORE
  next: see
- {step: see, type: python, code: x, args: {failed: "{{ it.failed }}"}, next: end}
- {step: end, result: "{{ it.failed | map(attribute='index') | list }}"}
"""
CHILDREN = 'task: {type: playbook, path: child, args: {n: "{{ n }}"}}'
JOBS = 'distribute: true\n  task: {type: python, code: x, args: {n: "{{ n }}"}}'
CHILD = 'workflow: [{step: start, next: a}, {step: a, type: python, code: x, args: {n: "{{ workload.n }}"}}]'
END = """
select noetl.%s_job(queue_id, 'w', attempts, %s)
from noetl.lease_jobs('w', 1000)
where action::jsonb #> '{args,n}' = any($1::jsonb[])"""
FAIL = END % ("fail", """jsonb_build_object('message', 'no ' || (action::jsonb #>> '{args,n}'), 'status_code', 503)""")
COMPLETE = END % ("complete", "'1'")
SEEN = "select action::jsonb #> '{args,failed}' from noetl.queue where node_name = 'see' and execution_id = $1"


async def end_items(database: Database, failing: list[Any], completing: list[Any]) -> None:
    """Fail some of the open items and complete others."""
    await execute(database, "update noetl.queue set status = 'queued' where status = 'leased'")
    await execute(database, FAIL, failing)
    await execute(database, "update noetl.queue set status = 'queued' where status = 'leased'")
    await execute(database, COMPLETE, completing)
    await drain(database)


def failed_entry(index: int, number: int, *, of_child: int | None = None) -> dict[str, Any]:
    """Give the entry of a failed item in `failed`."""
    error: dict[str, Any] = {"step": "it", "message": f"no {number}", "status_code": 503}
    if of_child is not None:
        error |= {"type": "child_failed", "child_step": "a", "child_execution_id": of_child}
    return {"index": index, "error": error}


@pytest.mark.parametrize("more", [JOBS, CHILDREN])
async def test_a_later_step_is_given_the_failed_items(database: Database, more: str) -> None:
    """In a later transaction; a replay finds the same."""
    await register(database, EACH.replace("MORE", more))
    await register(database, CHILD, path="child")
    [execution_id] = await start(database)
    await drain(database)
    await end_items(database, [1, 3], [2])
    ids = "select parent_index, execution_id from noetl.execution where parent_index >= 0"
    children = dict(await rows(database, ids))
    expected = [failed_entry(0, 1, of_child=children.get(0)), failed_entry(2, 3, of_child=children.get(2))]
    assert await value(database, SEEN, execution_id) == expected
    await answer(database, "see", 1)
    assert await value(database, "select result from noetl.execution where path = 'story'") == [0, 2]
    assert await inconsistencies(database) == {}


async def test_only_the_first_ten_thousand_failed_items_have_errors(database: Database) -> None:
    """All are listed; later ones have no error. The state of the execution does not grow."""
    count = "it.failed | map(attribute='error') | select | list | length }}"
    await register(database, EACH.replace("MORE", JOBS).replace("it.failed }}", count))
    [execution_id] = await start(database)
    await drain(database)
    await end_items(database, [1], [2])
    await execute(
        database,
        """insert into noetl.iteration (execution_id, node_id, index, status, error)
        select $1::bigint, $1::bigint || ':it', index, 'FAILED', '{"message": "no"}'
        from generate_series(3, 11000) index""",
        execution_id,
    )
    state = await value(database, "select length(tokens::text) from noetl.execution_state")
    await end_items(database, [], [3])
    assert await value(database, SEEN, execution_id) == 10_000
    assert await value(database, "select length(tokens::text) from noetl.execution_state") < state + 200
    await answer(database, "see", 1)
    assert await value(database, "select jsonb_array_length(result) from noetl.execution") == 1 + 10_998


async def test_a_fork_has_the_failed_items(database: Database) -> None:
    """With the result of their step, and so does a fork of the fork; a given result has none."""
    await register(database, EACH.replace("MORE", JOBS))
    [execution_id] = await start(database)
    await drain(database)
    await end_items(database, [2], [1, 3])
    await answer(database, "see", error="boom")
    expected = [failed_entry(1, 2)]
    for _ in range(2):
        execution_id = await retry_execution(database, execution_id)
        await drain(database)
        assert await value(database, SEEN, execution_id) == expected
        assert await differences(database, execution_id) == []
        await answer(database, "see", error="boom")
    by_hand = await fork(database, execution_id, "see", it=[1, 2, 3])
    await drain(database)
    assert await value(database, SEEN, by_hand) == []
    await answer(database, "see", 1)
    assert await rows(database, "select status, result from noetl.execution where execution_id = $1", by_hand) == [
        ("COMPLETED", [])
    ]
    assert await differences(database, by_hand) == []
    assert await inconsistencies(database) == {}


async def test_the_reference_worker_reports_failed_items(database: Database) -> None:
    """If it iterates itself, its result lists failed items, and the broker decides."""
    body = EACH.replace("MORE", 'task: {type: python, code: "def main(n): return 1 // n", args: {n: "{{ n }}"}}')
    await register(database, body.replace("code: x", "code: 'def main(**_): pass'"))
    stop = asyncio.Event()
    async with running(database):
        worker = asyncio.create_task(
            run_worker(WorkerOptions(dsn=database.dsn, schema=database.schema, concurrency=1), stop)
        )
        try:
            await start(database, payload={"items": [1, 0]})
            await until_ended(database)
        finally:
            stop.set()
            await worker
    assert await rows(database, "select status, result from noetl.execution") == [("COMPLETED", [1])]
    assert await inconsistencies(database) == {}
