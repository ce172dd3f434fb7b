"""One execution under a broker that goes away at a chosen statement, finished by another; and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from noetl_broker.daemon.evaluator import Evaluator
from noetl_broker.daemon.service import Service
from noetl_broker.store.pool import Connection, create_pool
from noetl_broker.store.queries import sql
from tests.brokers import options
from tests.chaos.proxy import Point, Proxy
from tests.chaos.shapes import answer
from tests.postgres import Database

MOST_STAGES = 40  # an execution of ours ends after 12 at most; one that goes round for ever is a fault that is told

LEASE = """
    select queue_id, attempts, node_name, action::jsonb -> 'args' as args
    from noetl.lease_jobs('w', 100)
    order by execution_id, node_id"""
COMPLETE = "select noetl.complete_job($1, 'w', $2, $3)"
FAIL = "select noetl.fail_job($1, 'w', $2, $3)"
# An execution with all below it, told without ids: what happened, which mail was read, which jobs there were.
STORY = r"""
    with recursive family as (
      select x.execution_id, x.path, x.parent_index, x.status, x.result
      from noetl.execution x
      where x.execution_id = $1
      union all
      select x.execution_id, x.path, x.parent_index, x.status, x.result
      from family f
      join noetl.execution x on x.parent_execution_id = f.execution_id
    ), told as (
      select execution_id, concat_ws(' ', 'execution', status, result) as line
      from family
      union all
      select e.execution_id,
        concat_ws(' ', 'event', e.event_type, regexp_replace(e.node_id, '^\d+', ''), e.status, e.result)
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
    )
    select concat_ws(' ', f.path, f.parent_index, t.line)
    from told t
    join family f on f.execution_id = t.execution_id
    order by 1"""


@asynccontextmanager
async def broker(database: Database, *, lanes: int = 1, **changes: Any) -> AsyncIterator[Evaluator]:
    """What a daemon evaluates with, without the daemon: connections of its own and so many lanes."""
    service = Service(options(database, lanes=lanes, **changes))
    pool = await create_pool(database.dsn, name="noetl-broker run", size=lanes, hot=True)
    try:
        yield service._evaluator(pool)
    finally:
        pool.terminate()


async def drain(evaluator: Evaluator, connection: Connection) -> None:
    """Take turns until no mail is left; what a broker that went away still holds is waited for."""
    while not evaluator.stopping.is_set():
        await evaluator.drain()
        if await connection.fetchval(sql("first_mail"), 0) is None:
            return


async def work(connection: Connection) -> int:
    """Answer every job that can be leased; gives their number."""
    jobs = await connection.fetch(LEASE)
    for queue_id, attempt, step, inputs in jobs:
        said = answer(step, attempt, inputs or {})
        await connection.execute(COMPLETE if said.ok else FAIL, queue_id, attempt, said.value)
    return len(jobs)


async def finish(evaluator: Evaluator, connection: Connection) -> None:
    """Let broker and workers go on by turns until nothing moves any more."""
    for _ in range(MOST_STAGES):
        await drain(evaluator, connection)
        if evaluator.stopping.is_set() or not await work(connection):
            return


async def finish_until(proxy: Proxy, connection: Connection) -> None:
    """Let a broker behind the proxy go on until the proxy stands still; then the broker is no more."""
    async with broker(proxy.database) as evaluator:
        finishing = asyncio.create_task(finish(evaluator, connection))
        reaching = asyncio.create_task(proxy.reached.wait())
        await asyncio.wait({finishing, reaching}, return_when=asyncio.FIRST_COMPLETED)
        reaching.cancel()
        evaluator.stopping.set()
        if proxy.reached.is_set():
            proxy.cut()
        await finishing


async def killed_at(database: Database, path: str, point: Point, fresh: Evaluator, connection: Connection) -> int:
    """Start an execution, kill its broker at the point, let a fresh one finish; gives its id."""
    execution_id = int(await connection.fetchval("select noetl.start_execution($1)", path))
    async with Proxy(database, point) as proxy:
        await finish_until(proxy, connection)
        assert proxy.reached.is_set(), f"no broker came to {point}"
    await finish(fresh, connection)
    return execution_id


async def undisturbed(database: Database, path: str, connection: Connection) -> tuple[list[str], list[str]]:
    """Run one execution and let nothing happen to it; gives its story, and the statements of its broker."""
    execution_id = int(await connection.fetchval("select noetl.start_execution($1)", path))
    async with Proxy(database) as proxy:
        await finish_until(proxy, connection)
    return await story(connection, execution_id), proxy.statements


async def story(connection: Connection, execution_id: int) -> list[str]:
    """What became of an execution and all below it, in an order that no clock decides."""
    return [row[0] for row in await connection.fetch(STORY, execution_id)]
