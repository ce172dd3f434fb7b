"""Load on throttles: lease sessions in two languages, and what the events say about it.

Half of the sessions are Python programs. The other half are PL/pgSQL blocks, which run on the server. A job of a rate
takes no time, one of a concurrency takes JOB_SECONDS.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Final, NamedTuple

import psycopg

from noetl_broker.store.connect.connection import connect
from tests.brokers import execute, rows, running
from tests.chaos.under_load import until
from tests.postgres import Database, psycopg_connect

RATE: Final = 0.5  # a second
CONCURRENCY: Final = 2
JOB_SECONDS: Final = 0.5
SESSIONS: Final = 8
ADD: Final = """
with jobs as (
  insert into noetl.queue (execution_id, node_id, node_name, node_type, action)
  select noetl.next_id(), k || ':' || n, $1, $1, '{}'
  from generate_series(1, $2::int) k, generate_series(1, $3::int) n
  returning execution_id, node_id
)
select noetl.throttle_jobs(
  array_agg(execution_id), array_agg(node_id), array_agg($1::text), array_agg(split_part(node_id, ':', 1)),
  array_agg($4::int), array_agg($5::float8), array_agg(null::int))
from jobs
"""
# Leases and completes until the load is over.
BLOCK: Final = """
do $$
declare
  jobs bigint[];
  attempts int[];
begin
  while not exists (select from public.load_is_over) loop
    select array_agg(j.queue_id), array_agg(j.attempts) into jobs, attempts
    from noetl.lease_jobs('{worker}', 50, 60, array['{kind}']) j;
    commit;
    perform pg_sleep(case when jobs is null then 0.01 else {seconds} end);
    if jobs is not null then
      perform noetl.complete_jobs('{worker}', jobs, attempts, array_fill('1'::jsonb, array[cardinality(jobs)]));
      commit;
    end if;
  end loop;
end
$$
"""
OVER: Final = "create table public.load_is_over ()"
END: Final = "insert into public.load_is_over default values"
# More of each type than all keys may begin at once: the throttles have held jobs back, and given slots again.
THROTTLES_WORKED: Final = """
select count(*) filter (where node_type = 'rated') > $1::int and count(*) filter (where node_type = 'slow') > $2::int
from noetl.event
where event_type = 'action_started'
"""
BEGUN: Final = """
select q.limit_name, q.limit_key, extract(epoch from e.created_at)::float8, (e.event_type = 'action_started')::int
from noetl.event e
join noetl.queue q using (execution_id, node_id)
where e.event_type in ('action_started', 'action_completed')
order by e.created_at
"""


class Found(NamedTuple):
    """What the events say: keys over their limit, and the shares of what the throttles allow that were used."""

    leases: int
    over_rate: list[str]
    over_concurrency: list[str]
    used_of_rate: float
    used_of_concurrency: float


async def run_throttled(database: Database, *, seconds: float, rated_keys: int, slow_keys: int) -> Found:
    """Run the load for so long, or on a slow machine until throttles have worked.

    In that time all keys have more jobs than they can begin.
    """
    jobs = int(seconds * RATE) + 3, int(seconds / JOB_SECONDS * CONCURRENCY) + 3
    over = asyncio.Event()
    await execute(database, OVER)
    async with running(database, sweep_seconds=600.0):
        await execute(database, ADD, "rated", rated_keys, jobs[0], None, RATE)
        await execute(database, ADD, "slow", slow_keys, jobs[1], CONCURRENCY, None)
        began = time.monotonic()
        async with asyncio.TaskGroup() as sessions:
            for number in range(SESSIONS):
                kind = "slow" if number % 4 >= 2 else "rated"
                if number % 2:
                    sessions.create_task(_python_session(database, f"w{number}", kind, over))
                else:
                    sessions.create_task(_sql_session(database, f"w{number}", kind))
            try:
                await asyncio.sleep(seconds)  # the load
                await until(database, THROTTLES_WORKED, rated_keys, slow_keys * CONCURRENCY)
            finally:
                over.set()
                await execute(database, END)
        seconds = time.monotonic() - began
    return _found(await rows(database, BEGUN), seconds, rated_keys, slow_keys)


async def _python_session(database: Database, worker: str, kind: str, over: asyncio.Event) -> None:
    connection = await connect(database, name=worker)
    while not over.is_set():
        jobs = await connection.fetch(
            "select queue_id, attempts from noetl.lease_jobs($1, 50, 60, array[$2::text])", worker, kind
        )
        if jobs:
            await asyncio.sleep(JOB_SECONDS if kind == "slow" else 0)  # the work
            await connection.execute(
                "select noetl.complete_jobs($1, $2, $3, array_fill('1'::jsonb, array[$4::int]))",
                worker, [job["queue_id"] for job in jobs], [job["attempts"] for job in jobs], len(jobs),
            )  # fmt: skip
        else:
            await asyncio.sleep(0.01)  # as a worker polls
    await connection.close()


async def _sql_session(database: Database, worker: str, kind: str) -> None:
    def run() -> None:
        with psycopg_connect(database, autocommit=True) as connection:
            work = JOB_SECONDS if kind == "slow" else 0
            connection.execute(psycopg.sql.SQL(BLOCK.format(worker=worker, kind=kind, seconds=work)))

    await asyncio.to_thread(run)


def _found(events: list[tuple[str, str, float, int]], seconds: float, rated_keys: int, slow_keys: int) -> Found:
    by_key: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for name, key, at, begins in events:
        by_key[name, key].append((at, begins))
    begun = {
        name: sum(b for (of, _), found in by_key.items() if of == name for _, b in found) for name in ("rated", "slow")
    }
    return Found(
        leases=sum(begun.values()),
        over_rate=[key for (name, key), found in by_key.items() if name == "rated" and _is_over_rate(found)],
        over_concurrency=[
            key for (name, key), found in by_key.items() if name == "slow" and most_at_once(found) > CONCURRENCY
        ],
        used_of_rate=begun["rated"] / (rated_keys * (1 + int(seconds * RATE))),
        used_of_concurrency=begun["slow"] * JOB_SECONDS / (slow_keys * CONCURRENCY * seconds),
    )


def _is_over_rate(found: list[tuple[float, int]]) -> bool:
    """Whether in some window more begin than the burst and the rate allow: a leaky bucket finds it."""
    full_at = float("-inf")
    for at in (at for at, begins in found if begins):
        if full_at > at + 1e-6:
            return True
        full_at = max(full_at, at) + 1 / RATE
    return False


def most_at_once(found: list[tuple[float, int]]) -> int:
    """The most jobs that were leased at a time; an end counts before a begin of the same moment."""
    most = now = 0
    for _, begins in sorted(found):
        now += 1 if begins else -1
        most = max(most, now)
    return most
