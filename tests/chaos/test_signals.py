"""Waits begin while their signals are sent: none is lost and none is doubled, beside several brokers that die."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import AsyncExitStack

import asyncpg
import pytest

from tests.brokers import (
    PATIENCE_SECONDS,
    broken_invariants,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    until_ended,
)
from tests.chaos.sampling import LONG
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

RACES = 10_000 if LONG else 50
AT_ONCE = 100 if LONG else 50
BODY = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, next: paid}
- {step: paid, type: wait, signal: paid, key: "{{ workload.key | default(execution_id) }}", timeout: 5m, next: end}
- {step: end, result: "{{ paid }}"}
"""
# Half of the signals by the key, half to the execution; both name the execution in the payload.
SEND = """
    select case when execution_id % 2 = 0 then noetl.send_signal('paid', execution_id::text, to_jsonb(execution_id))
      else noetl.signal_execution(execution_id, 'paid', to_jsonb(execution_id)) end
    from unnest($1::bigint[]) x (execution_id)"""
COMPLETE = """
    with leased as (select queue_id, attempts from noetl.lease_jobs('test', $1))
    select count(noetl.complete_job(queue_id, 'test', attempts, '1')) from leased"""
WRONG = """
    select x.execution_id, x.status, x.result
    from noetl.execution x
    where x.result is distinct from to_jsonb(x.execution_id)"""
DOUBLED = """
    select e.execution_id
    from noetl.event e
    where e.event_type in ('execution_signal', 'step_completed')
    group by e.execution_id, e.event_type, e.node_id
    having count(*) > 1"""


async def send_slowly(database: Database, executions: list[int]) -> None:
    """Send the signals of these executions, some at a time; each transaction stays open for a moment."""
    async with session(database) as own:
        while executions:
            count = random.randint(1, 20)
            some, executions = executions[:count], executions[count:]
            async with own.transaction():
                await own.execute(SEND, some)
                await asyncio.sleep(random.choice((0, 0.002, 0.02)))


async def begin_waits(database: Database, count: int) -> None:
    """Complete the jobs before the waits, some at a time."""
    done = 0
    async with session(database) as own, asyncio.timeout(PATIENCE_SECONDS):
        while done < count:
            done += await own.fetchval(COMPLETE, random.randint(1, 20))
            await asyncio.sleep(random.choice((0, 0.002, 0.01)))


async def test_no_signal_is_lost_or_doubled_while_its_wait_begins(database: Database) -> None:
    """By key and by execution; the sender's transaction ends before, during and after that of the wait."""
    await register(database, BODY)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(running(database, sweep_seconds=600.0))
        for _ in range(RACES // AT_ONCE):
            executions = await start(database, count=AT_ONCE)
            await asyncio.gather(
                send_slowly(database, executions[::2]),
                send_slowly(database, executions[1::2]),
                begin_waits(database, AT_ONCE),
            )
            await until_ended(database)
    assert await rows(database, WRONG) == []
    assert await rows(database, DOUBLED) == []
    assert await rows(database, "select * from noetl.match_request") == []
    assert await broken_invariants(database) == {}


LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


async def test_matchers_that_are_killed_lose_and_repeat_nothing(database: Database) -> None:
    """Four at once, one cut off every few milliseconds. Before that, one is cut off with three that it delivered."""
    body = 'workflow:\n- {step: start, next: go}\n- {step: go, type: wait, signal: go, key: "{{ execution_id }}0"}\n'
    await register(database, body)
    executions = await start(database, count=4 * AT_ONCE)
    await drain(database)
    await execute(database, "select noetl.send_signal('go', x || '0') from unnest($1::bigint[]) x", executions)
    done = asyncio.Event()

    async def match() -> None:
        while not done.is_set():
            with contextlib.suppress(*LOST):
                async with session(database) as own:
                    while not done.is_set():
                        if not await own.fetchval("select worked_on from noetl.match_signals(3)"):
                            done.set()

    async def kill() -> None:
        query = (
            "select pg_terminate_backend(pid) from pg_stat_activity where query like '%match_signals(3)%' and pid <> "
        )
        async with session(database) as own:
            for _ in range(30):
                await own.execute(f"{query} pg_backend_pid() order by random() limit 1")
                await asyncio.sleep(0.01)

    async with session(database) as cut, session(database) as own:
        await cut.execute("begin")
        assert await cut.fetchval("select worked_on from noetl.match_signals(3)") == 3
        assert await own.fetchval("select pg_terminate_backend($1, 10000)", cut.get_server_pid())
        cut.terminate()
    await asyncio.gather(kill(), *(match() for _ in range(4)))
    async with session(database) as last:  # a matcher finds nothing while one that is then cut off has the rest
        while await last.fetchval("select worked_on from noetl.match_signals(3)"):
            pass
    assert await rows(database, "select status, count(*) from noetl.wait group by 1") == [
        ("signalled", len(executions))
    ]
    await drain(database)
    assert await rows(database, DOUBLED) == []
    assert await rows(database, "select status, count(*) from noetl.execution group by 1") == [
        ("COMPLETED", len(executions))
    ]
