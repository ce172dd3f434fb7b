"""Throttles of jobs under load: many lease sessions, one key with very many jobs, workers and brokers that die."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from tests.brokers import broken_invariants, execute, register, rows, value
from tests.chaos.daemons import ready_daemon
from tests.chaos.sampling import LONG
from tests.chaos.throttled_load import ADD, CONCURRENCY, most_at_once, run_throttled
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos
RATED_KEYS, SLOW_KEYS = (1_000, 50) if LONG else (300, 20)
PARTS = 10 if LONG else 1  # of 10,000 jobs each, far more than a round of leases looks at
LEASE = "select queue_id, attempts from noetl.lease_jobs('w', $1, 60, array['slow'])"


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """Record an outcome for the table of faults at the end of a run."""
    return lambda fault, outcome: record_property("chaos", (fault, str(outcome)))


async def test_no_key_is_ever_over_its_limit(database: Database, tried: Callable[[str, object], None]) -> None:
    """From the events alone: neither more at once, nor more in any window of time."""
    # Three times the gap of a rate; `make soak` takes ten minutes.
    seconds = float(os.environ.get("NOETL_THROTTLED_SECONDS", "20" if LONG else "6"))
    found = await run_throttled(database, seconds=seconds, rated_keys=RATED_KEYS, slow_keys=SLOW_KEYS)
    tried(
        f"eight lease sessions, {RATED_KEYS:,} keys with a rate, {SLOW_KEYS} with a concurrency",
        f"{found.leases:,} leases, 0 over; {found.used_of_rate:.2f} and {found.used_of_concurrency:.2f} of the allowed",
    )
    assert (found.over_rate, found.over_concurrency) == ([], [])
    assert found.leases > RATED_KEYS + SLOW_KEYS * CONCURRENCY


async def test_many_held_jobs_of_one_key_keep_no_other_key_waiting(database: Database) -> None:
    """Each round of leases takes one job of each key, however many are held."""
    for part in range(PARTS):  # a session allows a statement half a minute
        await execute(database, ADD.replace("k || ':' || n", f"'big:{part}:' || n"), "slow", 1, 10_000, 1, None)
    await execute(database, ADD, "slow", 100, 10, 1, None)
    for _ in range(10):
        jobs = await rows(database, LEASE, 1_000)
        assert len(jobs) == 101
        ids, attempts = zip(*jobs, strict=True)
        await execute(
            database, "select noetl.complete_jobs('w', $1, $2, array_fill('1'::jsonb, array[101]))", ids, attempts
        )
    left = "select limit_key from noetl.queue where status <> 'done' group by 1"
    assert await rows(database, left) == [("big",)]
    assert await value(database, "select count(*) from noetl.queue where status = 'held'") == PARTS * 10_000 - 11


JOBS = 800 if LONG else 24
KEYS, SLOTS = 4, 2
LIVE = "select exists (select from noetl.execution where noetl.is_live(status))"
THROTTLED = f"""
workload: {{key: 0}}
workflow:
  - {{step: start, next: a}}
  - {{step: a, type: own, throttle: {{name: api, key: "{{{{ workload.key }}}}", concurrency: {SLOTS}}}, next: end}}
  - {{step: end}}
"""
START = """
    select noetl.start_executions(
      'story', array(select jsonb_build_object('key', n % $2) from generate_series(1, $1) n)
    )"""
NO_SWEEP = """
    create or replace function noetl.sweep_throttles(
      max_keys int, after_name text, after_key text, out released int, out last_name text, out last_key text
    )
    language sql as 'select 0, null::text, null::text'"""
# Each lease from its begin to its answer. Without an answer it holds its slot for a second at least.
LEASES = """
    select q.limit_key, extract(epoch from s.created_at)::float8,
      extract(epoch from coalesce(a.created_at, s.created_at + interval '1 second'))::float8
    from noetl.event s
    join noetl.queue q using (execution_id, node_id)
    left join noetl.event a on a.execution_id = s.execution_id and a.node_id = s.node_id
      and a.event_type = 'action_completed' and a.meta -> 'attempt' = s.meta -> 'attempt'
    where s.event_type = 'action_started'"""


async def _work(database: Database, worker: str, stopping: asyncio.Event) -> None:
    """Lease jobs for a second; the first and a fifth of the others are never answered, as by a killed worker."""
    chance = random.Random(worker)
    lost = True
    async with session(database) as own:
        while not stopping.is_set():
            job = await own.fetchrow("select queue_id, attempts from noetl.lease_jobs($1, 1, 1)", worker)
            if job is None:
                await asyncio.sleep(0.01)  # as a worker polls
                continue
            if not lost:
                await own.execute("select noetl.complete_job($1, $2, $3)", job["queue_id"], worker, job["attempts"])
            lost = chance.random() < 1 / 5


@pytest.mark.chaos
async def test_no_slot_is_lost_where_workers_and_brokers_are_killed(
    database: Database, tried: Callable[[str, object], None]
) -> None:
    """A lost lease frees its slot. No sweep helps: whoever frees a slot gives it on."""
    await register(database, THROTTLED)
    await execute(database, NO_SWEEP)
    killed, stopping = 0, asyncio.Event()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as workers:
        settings = {"reap_seconds": "0.1", "max_lost_leases": "1000"}
        brokers = [await stack.enter_async_context(ready_daemon(database, **settings)) for _ in range(2)]
        await execute(database, START, JOBS, KEYS)
        for number in range(4):
            workers.create_task(_work(database, f"w{number}", stopping))
        async with asyncio.timeout(600):
            while await value(database, LIVE):
                await asyncio.sleep(0.3)
                os.kill(brokers[killed % 2], signal.SIGKILL)
                brokers[killed % 2] = await stack.enter_async_context(ready_daemon(database, **settings))
                killed += 1
        stopping.set()
    leases = await rows(database, LEASES)
    by_key = [[(at, step) for key, *ends in leases if key == str(one) for at, step in zip(ends, (1, 0), strict=True)]
              for one in range(KEYS)]  # fmt: skip
    assert [found for found in by_key if most_at_once(found) > SLOTS] == []
    assert len(leases) > JOBS
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == JOBS
    assert await broken_invariants(database) == {}
    tried(
        f"{JOBS} jobs of {KEYS} keys with {SLOTS} slots, {killed} brokers killed",
        f"{len(leases) - JOBS} leases lost, no slot lost, 0 over",
    )
