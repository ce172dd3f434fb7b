"""`verify` beside two busy brokers never reports a passing state as a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.admin.verify import VerifyScope, Violation, verify
from noetl_broker.store.connect.connection import Connection, connect
from tests.brokers import PATIENCE_SECONDS, broken_invariants, register, rows, running, start
from tests.chaos.under_load import leave_core
from tests.postgres import Database
from tests.store.histories import CHILD, FAMILY, FORK

LATE = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, timeout: 0.05, retry: {max_attempts: 2, initial_delay: 0.01}, next: end}
- {step: b, type: nobody, code: x, next: end}
- {step: end}
"""
RETRIED = FAMILY.replace(
    "path: child, next", "path: child, timeout: 0.3, retry: {max_attempts: 3, initial_delay: 0.01}, next"
)
PATHS = {"fork": FORK, "family": RETRIED, "child": CHILD, "adopting": CHILD, "late": LATE}

# A worker that, by job and lease, completes, fails, answers twice, announces a child that it starts, or dies.
WORK = """
with leased as (
  select j.queue_id, j.attempts, j.execution_id, j.node_id, j.node_name, x.path,
    abs(hashint8(j.queue_id + j.attempts)) % 20 as mood
  from noetl.lease_jobs('w', 25, 60, '{python}') j
  join noetl.execution x on x.execution_id = j.execution_id
), announced as (
  insert into noetl.event (execution_id, event_type, node_id, node_name, context)
  select l.execution_id, 'iteration_started', l.node_id, l.node_name,
    jsonb_build_object('child_execution_id', noetl.start_execution('child'))
  from leased l
  where l.path = 'adopting'
), doubled as (
  insert into noetl.event (execution_id, event_type, node_id, node_name, result)
  select l.execution_id, 'action_completed', l.node_id, l.node_name, '{"ok": true}'
  from leased l
  cross join generate_series(1, 2)
  where l.mood = 0
)
select case
    when l.mood = 1 then null
    when l.mood between 2 and 4 then noetl.fail_job(l.queue_id, 'w', l.attempts, '{"message": "no"}', l.mood > 2)
    else noetl.complete_job(
      l.queue_id, 'w', l.attempts,
      jsonb_build_object('ok', true, 'again', l.mood > 14, 'pad', repeat('x', l.mood * 900))
    )
  end as answered
from leased l"""
DIE = "update noetl.queue set lease_until = clock_timestamp() where status = 'leased' and worker_id = 'w'"
CANCEL = """
select noetl.cancel_execution(execution_id)
from noetl.execution
where status = 'RUNNING' and path is not null
order by hashint8(execution_id)
limit 1"""
START = "select noetl.start_execution($1) from generate_series(1, 3)"
POLLS = 6
# Executions that run until they are cancelled: more than the polls cancel.
IDLE = "workflow: [{step: start, next: b}, {step: b, type: nobody, code: x}]"
CANCEL_IDLE = (
    "select noetl.cancel_execution(execution_id) from noetl.execution where status = 'RUNNING' and path = 'idle'"
)
Step = Callable[[Connection], Awaitable[object]]


async def repeat(database: Database, over: asyncio.Event, step: Step) -> None:
    """Run a step again and again, on its own connection, until the test is over."""
    connection = await connect(database, name="test")
    try:
        while not over.is_set():
            await step(connection)
    finally:
        await connection.close()


async def work(own: Connection) -> None:
    """Lease and answer jobs, and pause if there were none."""
    if not await own.fetch(WORK):
        await leave_core()


async def die(own: Connection) -> None:
    """Lose all leases."""
    await own.execute(DIE)
    await leave_core()


async def test_verify_finds_no_fault_in_a_busy_system(database: Database) -> None:
    """Retries, loops, children, items, timeouts, lost leases, duplicates and cancels at once."""
    for path, body in PATHS.items():
        await register(database, body, path=path, metadata="deadline: 1" if path == "late" else "")
    await register(database, IDLE, path="idle")
    await start(database, "idle", count=3 * POLLS)
    over = asyncio.Event()
    faults: list[Violation] = []
    ran: dict[int, int] = {}  # running executions at each check after new turns

    async def start_and_verify(own: Connection) -> None:
        """Start a few executions before each check, so that there is always some work."""
        if len(ran) < POLLS:
            for path in PATHS:
                await own.execute(START, path)
            await own.execute(CANCEL)
        else:
            await own.execute(CANCEL_IDLE)
        turns = await own.fetchval("select count(*) from noetl.turn")
        report = await verify(own, VerifyScope(which=Filter(since=1 if len(ran) % 2 else None)))
        faults.extend(fault for verdict in report.verdicts for fault in verdict.examples)
        if report.running:
            ran[turns] = report.running
        elif len(ran) >= POLLS:
            over.set()

    steps: list[Step] = [start_and_verify, work, work, die]
    async with running(database, reap_seconds=0.05), running(database, reap_seconds=0.05, batch_size=7):
        async with asyncio.timeout(3 * PATIENCE_SECONDS):
            await asyncio.gather(*(repeat(database, over, step) for step in steps))
    assert faults == []
    assert max(ran.values()) > POLLS
    assert await broken_invariants(database) == {}
    assert dict(await rows(database, "select status, count(*) from noetl.execution group by status")).keys() == {
        "COMPLETED",
        "FAILED",
        "CANCELLED",
    }
