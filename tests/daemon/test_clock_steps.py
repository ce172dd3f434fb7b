"""The server's clock steps back: what was written before lies in its future, and is pulled back.

To a broker, a clock that went back two hours is the same as rows that were written two hours ahead. So these tests move
the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from structlog.testing import capture_logs

from noetl_broker.daemon.counters import Counters
from noetl_broker.daemon.reaper import Clock, Reaper, keep_reaping
from noetl_broker.store.pool import Pool, create_pool
from tests.brokers import (
    PATIENCE_SECONDS,
    broken_invariants,
    complete_jobs,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    until_ended,
    value,
)
from tests.postgres import Database
from tests.sessions import session

STORY = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, timeout: 600, retry: {max_attempts: 3, initial_delay: 60, jitter: false}, next: end}
- {step: end}
"""
DEADLINE = ", deadline: 1800"
# Each time that decides about something, as the clock had it before it stepped back by so much.
STEP_BACK = (
    """insert into noetl.clock (seen_at) values (clock_timestamp() + $1::interval)
    on conflict (is_only) do update set seen_at = clock.seen_at + $1::interval""",
    """update noetl.queue
    set available_at = available_at + $1::interval, lease_until = lease_until + $1::interval,
      last_heartbeat = last_heartbeat + $1::interval, first_leased_at = first_leased_at + $1::interval,
      created_at = created_at + $1::interval, updated_at = updated_at + $1::interval""",
    """update noetl.execution_state
    set last_at = last_at + $1::interval, deadline_at = deadline_at + $1::interval""",
    "update noetl.event set created_at = created_at + $1::interval",
)
LEFT = "select round(extract(epoch from {} - clock_timestamp())) from noetl.{}"


@asynccontextmanager
async def pool_of(database: Database) -> AsyncIterator[Pool]:
    """A pool as the daemon has it."""
    pool = await create_pool(database.dsn, name="test", size=1, hot=True)
    try:
        yield pool
    finally:
        await pool.close()


async def look(database: Database, *, known: bool = True) -> Counters:
    """One look of a broker at the clock; `known`: it is not its first one."""
    counters = Counters()
    async with pool_of(database) as pool:
        clock = Clock(pool, counters)
        clock._is_first = not known
        await clock.look()
    return counters


async def step_back(database: Database, by: str = "2 h", *, seen: bool = True) -> None:
    """Set the clock back; `seen`: a broker was there to see the time before."""
    for statement in STEP_BACK if seen else STEP_BACK[1:]:
        async with session(database) as own:
            await own.execute(statement.replace("$1", f"'{by}'"))


async def queued(database: Database, *, metadata: str = "") -> int:
    """One execution whose job waits for a worker."""
    await register(database, STORY, metadata=metadata)
    [execution_id] = await start(database)
    await drain(database)
    return execution_id


async def left(database: Database, column: str, table: str = "queue") -> int:
    """Seconds until the time in this column, in the only row."""
    return int(await value(database, LEFT.format(column, table)))


async def test_a_running_broker_pulls_back_what_was_queued(database: Database) -> None:
    """Workers find the jobs within a second or two, and a line of the log says how far the clock stepped."""
    await register(database, STORY)
    await start(database, count=50)
    await drain(database)
    await step_back(database)
    assert await complete_jobs(database) == 0
    with capture_logs() as logs:
        async with running(database) as service, asyncio.timeout(PATIENCE_SECONDS):
            done = 0
            async with session(database) as own:
                rung = asyncio.Event()
                await own.add_listener("noetl_job", lambda *_: rung.set())
                while (done := done + await complete_jobs(database)) < 50:
                    await rung.wait()
                    rung.clear()
            await until_ended(database)
    assert (service.counters.clock_steps, service.counters.reaped["pulled_back"]) == (1, 50)
    assert round(service.counters.clock_step_seconds / 60) == 120
    [line] = [line for line in logs if line["event"].startswith("the clock of the database server has stepped back")]
    assert round(line["seconds"] / 60) == 120
    assert await broken_invariants(database) == {}


async def test_a_retry_keeps_what_was_left_of_its_delay(database: Database) -> None:
    """Sixty seconds are not two hours, nor nothing."""
    await queued(database)
    async with session(database) as own:
        [job] = await own.fetch("select queue_id from noetl.lease_jobs('w')")
        await own.execute("select noetl.fail_job($1, 'w', 1, $2)", job["queue_id"], {"message": "no"})
    await drain(database)
    await step_back(database)
    await look(database)
    assert 50 <= await left(database, "available_at") <= 60
    for _ in range(2):
        assert (await look(database)).reaped["pulled_back"] == 0
    assert 50 <= await left(database, "available_at") <= 60


async def test_a_lease_runs_for_its_length_again(database: Database) -> None:
    """Its worker is at work: the job is given to nobody else, and is lost no later than its length from now."""
    await queued(database)
    async with session(database) as own:
        await own.execute("select noetl.lease_jobs('w', 1, 300)")
    await step_back(database)
    await look(database)
    assert 290 <= await left(database, "lease_until") <= 300
    assert -10 <= await left(database, "first_leased_at") <= 0


async def test_a_deadline_keeps_what_was_left_of_it(database: Database) -> None:
    """Half an hour from the start, by the clock that the server has now."""
    await queued(database, metadata=DEADLINE)
    await step_back(database)
    await look(database)
    assert 1700 <= await left(database, "deadline_at", "execution_state") <= 1801


async def test_more_jobs_than_a_look_takes_are_pulled_back_by_the_next(database: Database) -> None:
    """Each in a short transaction; then it is over."""
    await register(database, STORY)
    await start(database, count=5)
    await drain(database)
    await step_back(database)
    async with session(database) as own:
        pulled = [await own.fetchval("select pulled from noetl.mind_clock(2)") for _ in range(5)]
        assert pulled == [2, 2, 1, 0, 0]
        assert await own.fetchval("select is_pulling from noetl.clock") is False
    assert await complete_jobs(database) == 5


async def test_jobs_are_pulled_back_where_no_broker_saw_the_clock_before(database: Database) -> None:
    """The daemon was away: the first look is at the jobs themselves; later ones do not take them for another step."""
    await queued(database)
    await step_back(database, seen=False)
    assert (await look(database)).clock_steps == 0
    assert (await look(database, known=False)).clock_steps == 1
    assert (await look(database, known=False)).clock_steps == 0
    assert await complete_jobs(database) == 1


async def test_a_clock_that_goes_on_is_only_noted(database: Database) -> None:
    """What is delayed stays so; a step of less than a second is none."""
    await queued(database)
    await execute(database, "update noetl.queue set available_at = clock_timestamp() + interval '1 h'")
    await execute(database, "insert into noetl.clock (seen_at) values (clock_timestamp() + interval '500 ms')")
    counters = await look(database)
    assert (counters.clock_steps, counters.reaped["pulled_back"]) == (0, 0)
    assert 3590 <= await left(database, "available_at") <= 3600


async def test_two_brokers_see_one_step(database: Database) -> None:
    """Whoever comes second finds it done."""
    await queued(database)
    await step_back(database)
    counters = Counters()
    async with pool_of(database) as one, pool_of(database) as other:
        await asyncio.gather(*(Clock(pool, counters).look() for pool in (one, other)))
        await Clock(one, counters).look()
    assert (counters.clock_steps, counters.reaped["pulled_back"]) == (1, 1)


async def test_a_session_with_a_mark_finds_jobs_after_the_step(database: Database) -> None:
    """What it remembers of dear looks is of a time that is not there yet."""
    await queued(database)
    async with session(database) as own:
        mark = "select set_config('noetl.lease_mark', concat_ws(' ', 0, e + 7220, e + 7200, -2147483648), false)"
        await own.execute(mark + " from extract(epoch from clock_timestamp()) e")
        assert len(await own.fetch("select queue_id from noetl.lease_jobs('w')")) == 1


async def test_the_reaper_goes_on_where_the_clock_cannot_be_looked_at(database: Database) -> None:
    """A lease that ran out is put back all the same."""
    await queued(database)
    async with session(database) as own:
        await own.execute("select noetl.lease_jobs('w')")
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 s'")
        await own.execute("alter table noetl.clock rename to no_clock")
    counters = Counters()
    async with pool_of(database) as pool, asyncio.timeout(PATIENCE_SECONDS):
        reaper = Reaper(pool, max_lost_leases=5, missing_event_seconds=30.0, foreign_lease_grace_seconds=900.0)
        chore = asyncio.create_task(keep_reaping(reaper, Clock(pool, counters), counters, seconds=0.01))
        async with session(database) as own:
            rung: Any = asyncio.Event()
            await own.add_listener("noetl_job", lambda *_: rung.set())
            while not counters.reaped["requeued"]:
                await asyncio.wait({asyncio.create_task(rung.wait())}, timeout=0.1)
        chore.cancel()
    assert await rows(database, "select status from noetl.queue") == [("queued",)]
