"""A gate before the writes of turns, at which brokers that decide the same execution meet for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from noetl_broker.daemon.lanes import Lanes
from noetl_broker.daemon.metrics import registry as metric
from tests.brokers import PATIENCE_SECONDS, execute
from tests.chaos.under_load import leave_core
from tests.postgres import Database
from tests.sessions import session

GATE = """
create function public.gate() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared(1);
  return null;
end $$;
create trigger gate before insert on noetl.turn for each statement execute function public.gate()"""
CLOSE = "select pg_advisory_lock(1)"
OPEN = "select pg_advisory_unlock(1)"
# Sessions that wait at the gate, or for a lock of one that does.
WAITING = """
select count(distinct l.pid)
from pg_locks l
join pg_stat_activity a on a.pid = l.pid
where a.datname = current_database() and not l.granted and l.locktype in ('advisory', 'transactionid', 'tuple')"""


async def build_gate(database: Database) -> None:
    """Put an open gate before the writes of turns."""
    await execute(database, GATE)


async def drain_and_meet(database: Database, brokers: Sequence[Lanes]) -> None:
    """Let brokers take all mail. No turn is written until one has decided, and another too or has found it locked."""
    async with session(database) as own, asyncio.TaskGroup() as tasks:
        await own.execute(CLOSE)
        before = _lock_misses(brokers)
        for one in brokers:
            tasks.create_task(one.drain())
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (waiting := await own.fetchval(WAITING)) < 2 and not (waiting and _lock_misses(brokers) > before):
                await leave_core()
        await own.execute(OPEN)


def _lock_misses(brokers: Sequence[Lanes]) -> float:
    return sum(one.shared.metrics.total(metric.LOCK_MISSES) for one in brokers)
