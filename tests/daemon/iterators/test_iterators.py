"""Iterators that the broker expands: children or jobs for items, bounded concurrency, results gathered in SQL."""

from __future__ import annotations

import pytest

from tests.brokers import broken_invariants, complete_jobs, drain, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database

EACH = """
workload: {{items: [1, 2, 3]}}
workflow:
- {{step: start, next: each}}
- step: each
  type: iterator
  collection: "{{{{ workload.items }}}}"
  element: n
  mode: async
  concurrency: {concurrency}
  on_error: {on_error}
  {more}
  next: end
- {{step: end, result: "{{{{ each }}}}"}}
"""
CHILDREN = 'task: {type: playbook, path: child, args: {n: "{{ n }}"}}'
JOBS = 'distribute: true\n  task: {type: python, code: x, args: {n: "{{ n }}"}}'
CHILD = """
workflow:
- {step: start, next: [{when: "workload.n == 2", step: slow}, {else: [end]}]}
- {step: slow, type: python, code: x, next: end}
- {step: end, result: {square: "{{ workload.n * workload.n }}"}}
"""


async def prepare(database: Database, more: str = CHILDREN, *, concurrency: int = 8, on_error: str = "fail") -> None:
    """Register the iterator and its child."""
    await register(database, EACH.format(more=more, concurrency=concurrency, on_error=on_error))
    await register(database, CHILD, path="child")


async def test_results_of_children_are_gathered_by_index(database: Database) -> None:
    """In whatever order they end. Each iteration_started names its child."""
    await prepare(database)
    await start(database)
    await drain(database)
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == 2
    await complete_jobs(database)
    await drain(database)
    assert await value(database, "select result from noetl.execution where path = 'story'") == [
        {"square": 1},
        {"square": 4},
        {"square": 9},
    ]
    named = """
        select count(*)
        from noetl.event e
        join noetl.execution x
          on x.execution_id = (e.context ->> 'child_execution_id')::bigint
          and x.parent_index = (e.context ->> 'index')::int
        where e.event_type = 'iteration_started'"""
    assert await value(database, named) == 3
    assert await inconsistencies(database) == {}


async def test_a_wide_iterator_starts_a_hundred_items_a_turn(database: Database) -> None:
    """Each further hundred takes another turn, with an event of its own."""
    await prepare(database, JOBS, concurrency=10_000)
    await start(database, payload={"items": [1] * 250})
    await drain(database)
    assert await complete_jobs(database, 1) == 250
    await drain(database)
    assert await value(database, "select jsonb_array_length(result) from noetl.execution where path = 'story'") == 250
    starts = """
        select max(count)
        from (
          select count(*)
          from noetl.event
          where event_type = 'iteration_started'
          group by meta -> 'turn'
        ) t"""
    assert await value(database, starts) == 100
    assert await inconsistencies(database) == {}


@pytest.mark.parametrize("secret,has_workload", [("none", [False] * 3), ("{{ secret.x }}", [True] * 3)])
async def test_a_large_workload_is_not_copied_into_the_jobs_of_items(
    database: Database, secret: str, has_workload: list[bool]
) -> None:
    """Unless an item has a deferred string, which may read the workload."""
    job = f'distribute: true\n  task: {{type: python, code: x, args: {{n: "{{{{ n }}}}", secret: "{secret}"}}}}'
    await prepare(database, job)
    await start(database, payload={"more": [str(number) for number in range(5000)]})
    await drain(database)
    have = "select context ? 'workload' from noetl.queue where node_name = 'each' and status = 'queued'"
    assert [row[0] for row in await rows(database, have)] == has_workload
    assert await broken_invariants(database, ignore=("every execution ended",)) == {}
