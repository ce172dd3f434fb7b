"""Slots under brokers that die: no execution of a key begins before the one ahead of it has ended, and none is left.

The sweep of the reaper is switched off in these tests, so nothing but the hand-over at an end admits anybody.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.brokers import broken_invariants, complete_jobs, execute, register, rows, running, value
from tests.chaos.daemons import ready_daemon
from tests.chaos.sampling import LONG
from tests.postgres import Database

pytestmark = pytest.mark.chaos

KEYS = 50
EXECUTIONS, KILLED = (1_000, 10_000) if LONG else (300, 300)
NO_SWEEP = """
    create or replace function noetl.sweep_slots(max_rows int, out admitted int, out swept int)
    language sql as 'select 0, 0'"""
JOB = """
workload: {customer: 0}
workflow:
  - {step: start, next: a}
  - {step: a, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
METADATA = 'concurrency: {key: "{{ workload.customer }}"}'
START = """
    select noetl.start_executions(
      'story', array(select jsonb_build_object('customer', n % $2) from generate_series(1, $1) n)
    )"""
LIVE = "select exists (select from noetl.execution where noetl.is_live(status))"
# Each execution by its key and number, from its first lease to its end.
RUNS = """
    with run as (
      select c.key, c.number, x.ended_at, (
        select min(e.created_at) from noetl.event e
        where e.execution_id = x.execution_id and e.event_type = 'action_started'
      ) as leased_at
      from noetl.execution x
      cross join lateral (
        select x.workload ->> 'customer' as key, (t.facts -> 'slots' -> 0 ->> 'number')::bigint as number
        from noetl.turn t
        where t.execution_id = x.execution_id and t.facts ? 'slots'
        order by t.turn
        limit 1
      ) c
    ), pairs as (
      select r.key, r.number, r.leased_at, lag(r.ended_at) over (partition by r.key order by r.number) as before
      from run r
    )
    select count(*) filter (where p.leased_at < p.before) as early,
      percentile_cont(array[0.5, 0.99]) within group (order by extract(epoch from p.leased_at - p.before)) as gaps
    from pairs p
    where p.before is not null"""


@asynccontextmanager
async def working(database: Database) -> AsyncIterator[None]:
    """Complete jobs during the block, whenever there are some."""
    stopping = asyncio.Event()

    async def work() -> None:
        while not stopping.is_set():
            if not await complete_jobs(database):
                await asyncio.sleep(0.002)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        stopping.set()
        await task


async def until_all_ended(database: Database, patience: float) -> None:
    """Wait until every execution has ended."""
    async with asyncio.timeout(patience):
        while await value(database, LIVE):  # noqa: ASYNC110 - a notification does not say that it is the last
            await asyncio.sleep(0.1)


async def assert_in_order(database: Database, tried: Callable[[str, object], None], fault: str) -> None:
    """Assert that nobody began early and that nothing is left over; add a row to the table."""
    [(early, gaps)] = await rows(database, RUNS)
    tried(
        fault,
        f"{early} early; from one's end to the next one's lease {gaps[0] * 1000:.0f} ms, p99 {gaps[1] * 1000:.0f} ms",
    )
    assert early == 0
    assert await rows(database, "select * from noetl.slot_claim") == []
    assert await rows(database, "select * from noetl.place") == []
    assert await broken_invariants(database) == {}


async def test_many_starts_of_few_keys_run_one_after_another(
    database: Database, tried: Callable[[str, object], None]
) -> None:
    """In the order of their numbers."""
    await register(database, JOB, metadata=METADATA)
    await execute(database, NO_SWEEP)
    async with running(database), working(database):
        await execute(database, START, EXECUTIONS, KEYS)
        await until_all_ended(database, 120)
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == EXECUTIONS
    await assert_in_order(database, tried, f"{EXECUTIONS} starts of {KEYS} keys at once")


async def test_no_hand_over_is_lost_where_brokers_are_killed(
    database: Database, tried: Callable[[str, object], None]
) -> None:
    """Two brokers; one of them is killed every second, in turn, and started again."""
    await register(database, JOB, metadata=METADATA)
    await execute(database, NO_SWEEP)
    killed = 0
    async with working(database), AsyncExitStack() as stack:
        brokers = [await stack.enter_async_context(ready_daemon(database)) for _ in range(2)]
        await execute(database, START, KILLED, KEYS)
        waiting = asyncio.create_task(until_all_ended(database, 1200))
        while not (await asyncio.wait({waiting}, timeout=1.0))[0]:
            os.kill(brokers[killed % 2], signal.SIGKILL)
            brokers[killed % 2] = await stack.enter_async_context(ready_daemon(database))
            killed += 1
        await waiting
    await assert_in_order(database, tried, f"{KILLED} executions of {KEYS} keys, {killed} brokers killed")
