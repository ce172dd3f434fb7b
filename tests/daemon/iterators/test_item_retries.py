"""Items that fail and are tried again by themselves, on a real database."""

from __future__ import annotations

import pytest

from noetl_broker.broker.model.values import JSON
from tests.brokers import drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.daemon.history.test_forks import differences, retry_execution
from tests.postgres import Database

EACH = """
workflow:
- {step: start, next: it}
- step: it
  type: iterator
  collection: "{{ range(20) | list }}"
  element: n
  mode: async
  concurrency: 7
  KEYS
  next: end
- {step: end, result: "{{ it }}"}
"""
RETRY = "retry: {max_attempts: 3, initial_delay: 0, jitter: false}"
JOBS = f'task: {{type: python, code: x, args: {{n: "{{{{ n }}}}"}}, {RETRY}}}'
CHILDREN = f'task: {{type: playbook, path: child, args: {{n: "{{{{ n }}}}"}}, {RETRY}}}'
CHILD = 'workflow: [{step: start, next: a}, {step: a, type: python, code: x, args: {n: "{{ workload.n }}"}}]'
# A third of the items fails once, and the failure of some of these is sent twice.
WORK = """
with leased as (
  select queue_id, attempts, (action::jsonb #>> '{args,n}')::int as n
  from noetl.lease_jobs('w', 1000)
), failed_before as (
  select l.n, coalesce(i.failures, 0) as failures
  from leased l
  left join noetl.iteration i on i.index = l.n
)
select case when l.n % 3 = 0 and f.failures = 0
  then noetl.fail_job(l.queue_id, 'w', l.attempts, jsonb_build_object('message', 'no ' || l.n))
  else noetl.complete_job(l.queue_id, 'w', l.attempts, to_jsonb(l.n * 10)) end
from leased l
join failed_before f on f.n = l.n"""
COMPLETE_ALL = """
select noetl.complete_job(queue_id, 'w', attempts, to_jsonb((action::jsonb #>> '{args,n}')::int * 10))
from noetl.lease_jobs('w', 1000)"""
# Fails item $1 and completes the others.
END_ITEMS = """
select case when l.n = $1 then noetl.fail_job(l.queue_id, 'w', l.attempts, '{"message": "no"}')
  else noetl.complete_job(l.queue_id, 'w', l.attempts, to_jsonb(l.n * 10)) end
from (
  select queue_id, attempts, (action::jsonb #>> '{args,n}')::int as n from noetl.lease_jobs('w', 1000)
) l
order by l.n"""
OPEN = "select exists (select from noetl.execution where status = 'RUNNING')"


async def work_until_ended(database: Database) -> None:
    """Let a worker answer all jobs until the executions have ended."""
    await drain(database)
    while await value(database, OPEN):
        await execute(database, "select noetl.fire_timers(1000)")
        await execute(database, WORK)
        await drain(database)


@pytest.mark.parametrize("keys", [JOBS, CHILDREN])
async def test_flaky_items_come_back_whole(database: Database, keys: str) -> None:
    """Each is tried again by itself; the result has no nulls, and the history is decided the same again."""
    await register(database, EACH.replace("KEYS", keys))
    await register(database, CHILD, path="child")
    [execution_id] = await start(database)
    await work_until_ended(database)
    expected: JSON = [n * 10 for n in range(20)]
    assert await value(database, "select result from noetl.execution where execution_id = $1", execution_id) == expected
    counted = "select array_agg(index order by index) from noetl.iteration where failures = 1"
    assert await value(database, counted) == [0, 3, 6, 9, 12, 15, 18]
    assert await rows(database, "select distinct status, failures from noetl.iteration order by 2") == [
        ("COMPLETED", 0),
        ("COMPLETED", 1),
    ]
    assert await inconsistencies(database) == {}
    assert await differences(database, execution_id) == []


async def test_caught_items_count_as_done(database: Database) -> None:
    """Their results are gathered with the others; null is one. It is under a name of the item in the log."""
    task = """task: {type: python, code: x, args: {n: '{{ n }}'}, catch: {result: "{{ {'bad': n} if n else none }}"}}"""
    await register(database, EACH.replace("KEYS", task))
    [execution_id] = await start(database)
    await work_until_ended(database)
    expected = [None, *({"bad": n} if n % 3 == 0 else n * 10 for n in range(1, 20))]
    assert await value(database, "select result from noetl.execution") == expected
    assert await value(database, "select count(*) from noetl.iteration where error is not null") == 7
    names = "select distinct node_name from noetl.event where event_type = 'iteration_completed' and result is not null"
    assert len(await rows(database, names)) == 7
    assert await inconsistencies(database) == {}
    assert await differences(database, execution_id) == []


async def test_a_child_of_an_item_that_timed_out_is_started_again(database: Database) -> None:
    """The earlier child is cancelled; the item goes on with the next one."""
    task = CHILDREN.replace("path: child", "path: child, timeout: 60")
    await register(database, EACH.replace("KEYS", task).replace("range(20)", "range(1)"))
    await register(database, CHILD, path="child")
    await start(database)
    await drain(database)
    await execute(database, "update noetl.queue set first_leased_at = first_leased_at - interval '1 hour'")
    await execute(database, "update noetl.timer set due_at = due_at - interval '1 hour'")
    await execute(database, "select noetl.reap(100, 5)")
    await drain(database)
    await work_until_ended(database)
    children = "select status from noetl.execution where path = 'child' order by execution_id"
    assert await rows(database, children) == [("CANCELLED",), ("COMPLETED",)]
    assert await value(database, "select result from noetl.execution where path = 'story'") == [0]
    assert await inconsistencies(database) == {}


async def test_a_retry_runs_only_the_items_again_that_did_not_complete(database: Database) -> None:
    """The results of the others are copied in the database; so does a retry of the retry."""
    task = "tolerate: 2\n  task: {type: python, code: x, args: {n: '{{ n }}'}, retry: 1}"
    await register(database, EACH.replace("KEYS", task))
    [execution_id] = await start(database)
    await work_until_ended(database)
    assert await value(database, "select status from noetl.execution") == "FAILED"
    done = await value(database, "select count(*) from noetl.iteration where status = 'COMPLETED'")
    retried = await retry_execution(database, execution_id)
    await drain(database)
    begun = "select count(*) from noetl.event where event_type = 'iterator_started' and (context ->> 'taken')::int = $1"
    assert await value(database, begun, done) == 1
    await execute(database, COMPLETE_ALL)
    await drain(database)
    while await value(database, OPEN):
        await execute(database, COMPLETE_ALL)
        await drain(database)
    expected: JSON = [n * 10 for n in range(20)]
    assert await value(database, "select result from noetl.execution where execution_id = $1", retried) == expected
    jobs = "select count(*) from noetl.queue where execution_id = $1 and node_id like '%.%'"
    assert await value(database, jobs, retried) == 20 - done
    assert await inconsistencies(database) == {}
    assert await differences(database, retried) == []


async def test_a_retry_of_a_retry_keeps_the_results_of_both(database: Database) -> None:
    """What the first one copied is copied again."""
    task = "task: {type: python, code: x, args: {n: '{{ n }}'}, retry: 1}"
    await register(database, EACH.replace("KEYS", task))
    [execution_id] = await start(database)
    await drain(database)
    await execute(database, END_ITEMS, 2)
    await drain(database)
    first = await retry_execution(database, execution_id)
    await drain(database)
    await execute(database, END_ITEMS, 5)
    await drain(database)
    second = await retry_execution(database, first)
    await drain(database)
    while await value(database, OPEN):
        await execute(database, COMPLETE_ALL)
        await drain(database)
    expected: JSON = [n * 10 for n in range(20)]
    assert await value(database, "select result from noetl.execution where execution_id = $1", second) == expected
    assert await differences(database, second) == []
    assert await inconsistencies(database) == {}
