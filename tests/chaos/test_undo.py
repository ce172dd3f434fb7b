"""Many brokers undo while events are doubled and late, leases get lost, undos fail, and operators ask at any moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import asyncpg
import pytest

from noetl_broker.daemon.lanes import Lanes
from noetl_broker.store.connect.connection import Connection
from tests.brokers import register, rows
from tests.chaos.killed_brokers import broker, drain
from tests.chaos.sampling import LONG, sample
from tests.chaos.shapes import register_shapes
from tests.consistency import inconsistencies
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

SEEDS = range(9_000_000, 9_000_000 + (20 if LONG else 1))
EXECUTIONS = 12
MOST_ROUNDS = 400
FAILS = {"check": 0.5, "b": 0.3, "a!undo": 0.3, "book!undo": 0.5}  # how often
WIDE = """
workflow:
- {step: start, next: [a, b, call, check]}
- {step: a, type: python, code: x, compensate: {type: python, code: x}, next: c}
- {step: b, type: python, code: x, retry: {max_attempts: 2, initial_delay: 0}, compensate: {type: python, code: x}}
- {step: c, type: python, code: x, compensate: {type: python, code: x}, next: end}
- {step: call, type: playbook, path: undoing, args: {n: 1}, next: end}
- {step: check, type: python, code: x, next: end}
- {step: end}
"""
LEASE = "select queue_id, attempts, node_name from noetl.lease_jobs('w', $1) order by queue_id"
COMPLETE = "select noetl.complete_job($1, 'w', $2, $3)"
FAIL = "select noetl.fail_job($1, 'w', $2, $3)"
LOSE = """
    update noetl.queue
    set lease_until = clock_timestamp() - interval '1 second'
    where queue_id in (select queue_id from noetl.queue where status = 'leased' order by md5(queue_id || $1) limit 1)"""
# The answers of workers and children once more, as a producer's own insert: it has no lease.
DOUBLE = """
    insert into noetl.event (
      execution_id, catalog_id, event_type, node_id, node_name, node_type, status, result, error, meta
    )
    select execution_id, catalog_id, event_type, node_id, node_name, node_type, status, result, error, meta
    from noetl.event e
    where e.event_type in ('action_completed', 'action_failed', 'execution_cancel', 'execution_abandon')
    order by md5(e.event_id || $1)
    limit 3"""
LEFT = """
    select x.execution_id
    from noetl.execution x
    where x.undo_status = 'left'
      and exists (select from noetl.undo u where u.execution_id = x.execution_id and u.status in ('open', 'failed'))
    order by x.execution_id"""
FAMILY = """
    select u.execution_id
    from (select distinct execution_id from noetl.undo) u
    where noetl.root_of(u.execution_id) = noetl.root_of($1)
    order by u.execution_id"""
# What reported success and has a `compensate`, in an execution that failed or was cancelled, and has no row.
NOT_LISTED = """
    select e.execution_id, e.node_id
    from noetl.event e
    join noetl.execution x on x.execution_id = e.execution_id
    where e.event_type = 'action_completed' and e.node_name in ('a', 'b', 'c', 'book', 'tell')
      and x.status in ('FAILED', 'CANCELLED')
      and not exists (select from noetl.undo u where u.execution_id = e.execution_id and u.node_id = e.node_id)"""
# An undo that was tried for something that did not report success.
TOO_MUCH = """
    select u.execution_id, u.node_id, u.status
    from noetl.undo u
    where u.status in ('done', 'running', 'failed') and u.children is null
      and not exists (
        select from noetl.event e
        where e.execution_id = u.execution_id and e.node_id = u.node_id and e.event_type = 'action_completed'
      )"""
# Within one undo the last success is undone first. Nothing is left in an execution that failed or was cancelled.
OUT_OF_ORDER = """
    select s.execution_id, s.node_id
    from (
      select e.execution_id, e.node_id, u.turn,
        lag(u.turn) over (partition by e.execution_id, (
          select count(*)
          from noetl.event b
          where b.execution_id = e.execution_id and b.event_type = 'execution_undo' and b.event_id < e.event_id
        ) order by e.created_at) as before
      from noetl.event e
      join noetl.undo u on u.execution_id = e.execution_id and u.node_id = e.node_id
      where e.event_type = 'compensation_started'
    ) s
    where s.turn >= s.before
    union all
    select u.execution_id, u.node_id
    from noetl.undo u
    join noetl.execution x on x.execution_id = u.execution_id
    where x.status in ('FAILED', 'CANCELLED') and u.status in ('open', 'failed')"""

# Over all undos of an execution, each of its visits is undone once.
DOUBLED = """
    select e.execution_id, e.node_id, count(*)
    from noetl.event e
    where e.event_type = 'compensation_completed'
    group by e.execution_id, e.node_id
    having count(*) > 1"""
# A child that counts as undone, and of which something is left.
TOO_SOON = """
    select u.execution_id, u.node_id, c.execution_id, c.node_id, c.status
    from noetl.undo u
    join noetl.undo c on c.execution_id = any(u.children)
    where u.status = 'done' and c.status in ('open', 'running', 'failed')"""


async def undo(connection: Connection, execution_id: int) -> None:
    """Ask for an undo, which may be refused."""
    try:
        await connection.fetchval("select noetl.undo_execution($1)", execution_id)
    except asyncpg.PostgresError as fault:
        if fault.sqlstate != "NB409":
            raise


async def operate(operators: Sequence[Connection], chance: random.Random) -> None:
    """Ask twice at once for an undo of an execution, or also of its parent or child; abandon one."""
    first, second = operators
    left = [row[0] for row in await first.fetch(LEFT)]
    if left:
        one = chance.choice(left)
        other = chance.choice(await first.fetch(FAMILY, one))[0]
        await asyncio.gather(undo(first, one), undo(second, other))
    undoing = "status = 'COMPENSATING' or undo_status = 'undoing'"
    live = await first.fetch(f"select execution_id from noetl.execution where {undoing} order by 1")
    if live and chance.random() < 0.1:
        await first.fetchval("select noetl.abandon_execution($1)", chance.choice(live)[0])


async def disturb(connection: Connection, chance: random.Random, executions: list[int]) -> int:
    """Answer some jobs, lose a lease, double events, cancel an execution; gives how many jobs were answered."""
    jobs = await connection.fetch(LEASE, chance.randint(1, 40))
    chance.shuffle(jobs)
    for queue_id, attempt, name in jobs:
        if chance.random() < 0.05:
            continue  # its worker dies
        if chance.random() < FAILS.get(name, 0.0):
            error = {"message": "no", "type": chance.choice(["x", "timeout"])}
            await connection.execute(FAIL, queue_id, attempt, error)
        else:
            await connection.execute(COMPLETE, queue_id, attempt, {"n": 1})
    if chance.random() < 0.3:
        await connection.execute(LOSE, str(chance.random()))
    if chance.random() < 0.5:
        await connection.execute(DOUBLE, str(chance.random()))
    if chance.random() < 0.2:
        await connection.execute("select noetl.cancel_execution($1)", chance.choice(executions))
    await connection.execute("select noetl.reap(100, 5)")
    return len(jobs)


async def undo_all(lanes: Lanes, connection: Connection) -> None:
    """Undo what is left, with nothing that disturbs."""
    for _ in range(MOST_ROUNDS):
        for row in await connection.fetch(LEFT):
            await undo(connection, row[0])
        await drain(lanes, connection)
        jobs = await connection.fetch(LEASE, 1000)
        for queue_id, attempt, _name in jobs:
            await connection.execute(COMPLETE, queue_id, attempt, {"n": 1})
        if not jobs and not await connection.fetch(LEFT):
            return
    raise AssertionError("something is left for ever")


@pytest.mark.parametrize("brokers", sample([1, 2, 4], 2))
async def test_each_success_is_undone_once(
    database: Database, brokers: int, tried: Callable[[str, object], None]
) -> None:
    """Or it is listed as unknown; nothing else is undone."""
    await register_shapes(database)
    await register(database, WIDE, path="wide")
    async with AsyncExitStack() as stack:
        connection, *operators = [await stack.enter_async_context(session(database)) for _ in range(3)]
        running = [await stack.enter_async_context(broker(database, batch_size=4)) for _ in range(brokers)]
        for seed in SEEDS:
            chance = random.Random(seed)
            executions = [
                int(await connection.fetchval("select noetl.start_execution('wide')")) for _ in range(EXECUTIONS)
            ]
            for _ in range(MOST_ROUNDS):
                await asyncio.gather(*(one.drain() for one in running), operate(operators, chance))
                await drain(running[0], connection)
                assert await connection.fetch(TOO_SOON) == []
                if not await disturb(connection, chance, executions) and not await connection.fetchval(
                    "select count(*) from noetl.queue where status in ('queued', 'leased', 'retry')"
                ):
                    break
            await drain(running[0], connection)
            await undo_all(running[0], connection)
    for statement in (NOT_LISTED, TOO_MUCH, OUT_OF_ORDER, DOUBLED):
        assert await rows(database, statement) == []
    assert await inconsistencies(database) == {}
    counts = await rows(database, "select status, count(*) from noetl.undo group by status order by status")
    tried(f"{len(SEEDS) * EXECUTIONS} executions, {brokers} brokers", ", ".join(f"{n} {s}" for s, n in counts))
