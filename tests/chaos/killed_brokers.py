"""Runs one execution with a broker that dies at a chosen statement and another that finishes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from noetl_broker.daemon.lanes import Lanes
from noetl_broker.daemon.matcher import Matcher
from noetl_broker.daemon.service import Service
from noetl_broker.daemon.timers import Timers
from noetl_broker.store.connect.connection import Connection, create_pool
from noetl_broker.store.queries import sql
from tests.brokers import options
from tests.chaos.shapes import answer
from tests.chaos.stopping_proxy import Point, StoppingProxy
from tests.postgres import Database

MOST_STAGES = 40  # executions of these playbooks end after 25 at most; more is an endless loop

LEASE = """
    select queue_id, attempts, node_name, action::jsonb -> 'args' as args
    from noetl.lease_jobs('w', 100)
    order by execution_id, node_id"""
COMPLETE = "select noetl.complete_job($1, 'w', $2, $3)"
FAIL = "select noetl.fail_job($1, 'w', $2, $3)"
MAKE_DUE = """
    update noetl.timer
    set due_at = '2026-01-01T00:00:00Z'
    where due_at < clock_timestamp() + interval '1 day' and due_at > clock_timestamp()"""
# Each execution of this shape is paused once and resumed once, whatever broker dies.
PAUSE = """
    select noetl.pause_execution(x.execution_id)
    from noetl.execution x
    where x.path = 'held' and x.status = 'RUNNING'
      and not exists (
        select from noetl.event e where e.execution_id = x.execution_id and e.event_type = 'execution_pause'
      )"""
RESUME = """
    select noetl.resume_execution(x.execution_id)
    from noetl.execution x
    where x.path = 'held' and x.status = 'PAUSED'
      and not exists (
        select from noetl.event e where e.execution_id = x.execution_id and e.event_type = 'execution_resume'
      )"""
DECIDE = """
    select noetl.decide_approval(a.execution_id, a.node_id, true, 'ann')
    from noetl.pending_approvals a
    where a.path = 'asked' and a.step = 'ask'"""
# An execution and its descendants without ids and moments of decisions: events, turns, jobs and undos.
STORY = r"""
    with recursive family as (
      select x.execution_id, x.path, x.parent_index, x.status, x.result
      from noetl.execution x
      where x.execution_id = $1
      union all
      select x.execution_id, x.path, x.parent_index, x.status, x.result
      from family f
      join noetl.execution x on x.parent_execution_id = f.execution_id
    ), lines as (
      select execution_id, concat_ws(' ', 'execution', status, result) as line
      from family
      union all
      select e.execution_id,
        concat_ws(' ', 'event', e.event_type, regexp_replace(e.node_id, '^\d+', ''), e.status,
          regexp_replace(e.result::text, '"at": "[^"]*"', '"at"'))
      from noetl.event e
      join family f on f.execution_id = e.execution_id
      union all
      select t.execution_id, concat_ws(' ', 'turn', e.event_type, regexp_replace(e.node_id, '^\d+', ''), t.outcome)
      from noetl.turn t
      join family f on f.execution_id = t.execution_id
      join noetl.event e on e.execution_id = t.execution_id and e.event_id = t.event_id
      union all
      select q.execution_id, concat_ws(' ', 'job', regexp_replace(q.node_id, '^\d+', ''), q.status, q.attempts)
      from noetl.queue q
      join family f on f.execution_id = q.execution_id
      union all
      select u.execution_id, concat_ws(' ', 'undo', regexp_replace(u.node_id, '^\d+', ''), u.status)
      from noetl.undo u
      join family f on f.execution_id = u.execution_id
    )
    select concat_ws(' ', f.path, f.parent_index, t.line)
    from lines t
    join family f on f.execution_id = t.execution_id
    order by 1"""


@asynccontextmanager
async def broker(database: Database, *, lanes: int = 1, **changes: Any) -> AsyncIterator[Lanes]:
    """Give the lanes of a daemon without the daemon, on their own connections."""
    service = Service(options(database, lanes=lanes, **changes))
    pool = await create_pool(database, name="noetl-broker run", size=lanes, hot=True)
    try:
        yield service._make_lanes(pool)
    finally:
        pool.terminate()


async def drain(lanes: Lanes, connection: Connection) -> None:
    """Decide until no mail is left. Waits for mail that a dead broker still holds."""
    while not lanes.stopping.is_set():
        await lanes.drain()
        if await connection.fetchval(sql("first_mail"), 0) is None:
            return


async def work(connection: Connection) -> int:
    """Lease and answer every available job; gives their number."""
    jobs = await connection.fetch(LEASE)
    for queue_id, attempt, step, inputs in jobs:
        outcome = answer(step, attempt, inputs or {})
        await connection.execute(COMPLETE if outcome.ok else FAIL, queue_id, attempt, outcome.value)
    return len(jobs)


async def fire(lanes: Lanes, connection: Connection) -> int:
    """Make timers due, also those of retries, but none of days; fire them by the broker; gives their number."""
    await connection.execute(MAKE_DUE)
    try:
        due = await Timers(lanes.shared.pool, lanes.shared.metrics, on_fired=lambda: None).fire()
    except Exception:
        if lanes.stopping.is_set():
            return 0
        raise
    return due.fired


async def match(lanes: Lanes) -> int:
    """Bring signals to waits by the broker; gives their number."""
    try:
        return await Matcher(lanes.shared.pool, lanes.shared.metrics, on_mail=lambda: None).match_all()
    except Exception:
        if lanes.stopping.is_set():
            return 0
        raise


async def finish(lanes: Lanes, connection: Connection) -> None:
    """Let broker and workers take turns until nothing changes any more."""
    for _ in range(MOST_STAGES):
        await drain(lanes, connection)
        if lanes.stopping.is_set():
            return
        if await connection.fetch(PAUSE) or await connection.fetch(DECIDE):
            continue
        moved = await work(connection) + await fire(lanes, connection) + await match(lanes)
        if not moved and not await connection.fetch(RESUME):
            return


async def finish_until(proxy: StoppingProxy, connection: Connection) -> None:
    """Run a broker behind the proxy until the proxy stops, then cut its connections."""
    async with broker(proxy.database) as lanes:
        finishing = asyncio.create_task(finish(lanes, connection))
        reaching = asyncio.create_task(proxy.reached.wait())
        await asyncio.wait({finishing, reaching}, return_when=asyncio.FIRST_COMPLETED)
        reaching.cancel()
        lanes.stopping.set()
        if proxy.reached.is_set():
            proxy.cut()
        await finishing


async def killed_at(database: Database, path: str, point: Point, fresh: Lanes, connection: Connection) -> int:
    """Start an execution, kill its broker at the point, let another one finish; gives the execution id."""
    execution_id = int(await connection.fetchval("select noetl.start_execution($1)", path))
    async with StoppingProxy(database, point) as proxy:
        await finish_until(proxy, connection)
        assert proxy.reached.is_set(), f"no broker came to {point}"
    await finish(fresh, connection)
    return execution_id


async def undisturbed(database: Database, path: str, connection: Connection) -> tuple[list[str], list[str]]:
    """Run one execution without faults; gives its story and the statements of its broker."""
    execution_id = int(await connection.fetchval("select noetl.start_execution($1)", path))
    async with StoppingProxy(database) as proxy:
        await finish_until(proxy, connection)
    return await story(connection, execution_id), proxy.statements


async def story(connection: Connection, execution_id: int) -> list[str]:
    """Give the story of an execution and its descendants, in an order that does not depend on time."""
    return [row[0] for row in await connection.fetch(STORY, execution_id)]
