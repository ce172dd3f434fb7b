"""The server's clock steps back: due times in the far future are pulled back.

For a broker, a clock that went back two hours equals rows that were written two hours ahead. So these tests change the
rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from noetl_broker.daemon import reaper as reaper_module
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.reaper import ClockCheck, Reaper, keep_reaping
from noetl_broker.store.connect.connection import Pool, create_pool
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
    until_so_many_ended,
    value,
)
from tests.postgres import Database
from tests.sessions import session

STORY = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, timeout: 600, next: end,
   retry: {max_attempts: 3, initial_delay: 20m, max_delay: 20m, jitter: false}}
- {step: end}
"""
DEADLINE = "deadline: 1800"
# Shifts all due times, as if the clock had stepped back by so much.
STEP_BACK = (
    """insert into noetl.clock as c (seen_at) values (clock_timestamp() + $1::interval)
    on conflict (is_only) do update set seen_at = c.seen_at + $1::interval""",
    """update noetl.queue
    set available_at = available_at + $1::interval, lease_until = lease_until + $1::interval,
      last_heartbeat = last_heartbeat + $1::interval, first_leased_at = first_leased_at + $1::interval,
      created_at = created_at + $1::interval, updated_at = updated_at + $1::interval""",
    "update noetl.execution_state set last_at = last_at + $1::interval",
    "update noetl.timer set due_at = due_at + $1::interval, created_at = created_at + $1::interval",
    "update noetl.event set created_at = created_at + $1::interval",
)
LEFT = "select round(extract(epoch from {} - clock_timestamp())) from noetl.{}"


@asynccontextmanager
async def pool_of(database: Database) -> AsyncIterator[Pool]:
    """Give a pool like the daemon's."""
    pool = await create_pool(database, name="test", size=1, hot=True)
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def checked_clock(database: Database) -> AsyncIterator[tuple[ClockCheck, MetricValues]]:
    """Give the clock check of a broker that has run once, and its counters."""
    metrics = MetricValues.of_service()
    async with pool_of(database) as pool:
        clock = ClockCheck(pool, metrics)
        await clock.run()
        yield clock, metrics


async def step_back(database: Database, by: str = "2 h", *, seen: bool = True) -> None:
    """Set the clock back; `seen`: a broker ran before the step."""
    for statement in STEP_BACK if seen else STEP_BACK[1:]:
        async with session(database) as own:
            await own.execute(statement.replace("$1", f"'{by}'"))


async def queued(database: Database, *, metadata: str = "") -> int:
    """Give one execution whose job waits for a worker."""
    await register(database, STORY, metadata=metadata)
    [execution_id] = await start(database)
    await drain(database)
    return execution_id


async def seconds_left(database: Database, column: str, table: str = "queue") -> int:
    """Give the seconds until the time in this column, in the only row."""
    return int(await value(database, LEFT.format(column, table)))


async def test_a_running_broker_pulls_back_schedules(database: Database) -> None:
    """A schedule that was moved in the future starts by the clock of now; the metric says so."""
    await register(database, "workflow: [{step: start, next: end}, {step: end}]")
    await execute(database, "select noetl.put_schedule('often', 'story', every => '1 second')")
    await execute(
        database,
        """update noetl.start_schedule
        set since_at = since_at + interval '2 h', next_at = since_at + interval '2 h 1 s',
          due_at = since_at + interval '2 h 1 s', moved_at = clock_timestamp() + interval '2 h'""",
    )
    await step_back(database)
    async with running(database, reap_seconds=0.1) as service:
        await until_so_many_ended(database, 1)
    assert service.metrics.get(metric.SCHEDULE_MOMENTS, "pulled_back") == 1


async def test_a_running_broker_pulls_back_queued_jobs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the jobs within seconds, and the log shows the size of the step."""
    monkeypatch.setattr(reaper_module, "log", structlog.get_logger("test"))  # another test may have cached it
    await register(database, STORY)
    await start(database, count=5)
    await drain(database)
    await step_back(database)
    assert await complete_jobs(database) == 0
    with capture_logs() as logs:
        async with running(database) as service, asyncio.timeout(PATIENCE_SECONDS):
            done = 0
            async with session(database) as own:
                notified = asyncio.Event()
                await own.add_listener("noetl_job", lambda *_: notified.set())
                while (done := done + await complete_jobs(database)) < 5:
                    await notified.wait()
                    notified.clear()
            await until_ended(database)
    assert service.metrics.get(metric.REAPED, "pulled_back") == 5
    assert round(service.metrics.get(metric.CLOCK_STEPS) / 60) == 120
    [line] = [line for line in logs if line["event"].startswith("the clock of the database server has stepped back")]
    assert round(line["seconds"] / 60) == 120
    assert await broken_invariants(database) == {}


async def test_a_retry_keeps_the_rest_of_its_delay(database: Database) -> None:
    """Twenty minutes become neither two hours nor zero."""
    await queued(database)
    async with session(database) as own:
        [job] = await own.fetch("select queue_id from noetl.lease_jobs('w')")
        await own.execute("select noetl.fail_job($1, 'w', 1, $2)", job["queue_id"], {"message": "no"})
    await drain(database)
    async with checked_clock(database) as (clock, metrics):
        await step_back(database)
        for _ in range(3):
            await clock.run()
            assert metrics.get(metric.REAPED, "pulled_back") == 1
            assert 1000 <= await seconds_left(database, "available_at") <= 1200


async def test_a_lease_gets_its_full_length_and_a_deadline_the_rest_of_its_time(database: Database) -> None:
    """The worker is alive, so no other gets the job. The deadline is half an hour from the start, by the new clock."""
    await queued(database, metadata=DEADLINE)
    await execute(database, "select noetl.lease_jobs('w', 1, 3000)")
    async with checked_clock(database) as (clock, _):
        await step_back(database)
        await clock.run()
    assert 2800 <= await seconds_left(database, "lease_until") <= 3000
    assert -200 <= await seconds_left(database, "first_leased_at") <= 0
    assert 1700 <= await seconds_left(database, "due_at", "timer") <= 1801


async def test_many_jobs_are_pulled_back_in_several_checks(database: Database) -> None:
    """Each in a short transaction."""
    await register(database, STORY)
    await start(database, count=5)
    await drain(database)
    await step_back(database)
    async with session(database) as own:
        pulled = [await own.fetchval("select pulled from noetl.mind_clock(2)") for _ in range(5)]
        assert pulled == [2, 2, 1, 0, 0]
        assert await own.fetchval("select is_pulling from noetl.clock") is False
    assert await complete_jobs(database) == 5


async def test_the_first_check_after_a_start_pulls_back_jobs(database: Database) -> None:
    """No broker ran during the step: the first check reads the jobs. Later ones see no second step."""
    await queued(database)
    async with checked_clock(database) as (clock, metrics):
        await step_back(database, seen=False)
        await clock.run()
        assert metrics.get(metric.CLOCK_STEPS) == 0
    for steps in (True, False):
        async with checked_clock(database) as (_, metrics):
            assert (metrics.get(metric.CLOCK_STEPS) > 0) is steps
    assert await complete_jobs(database) == 1


async def test_a_clock_without_a_step_changes_nothing(database: Database) -> None:
    """Delays stay, and a step of less than a second is ignored."""
    await queued(database)
    await execute(database, "update noetl.queue set available_at = clock_timestamp() + interval '1 h'")
    async with checked_clock(database) as (clock, metrics):
        await execute(database, "update noetl.clock set seen_at = clock_timestamp() + interval '500 ms'")
        await clock.run()
        await execute(database, "update noetl.clock set seen_at = seen_at - interval '1 h'")
        await clock.run()
    assert abs(await seconds_left(database, "seen_at", "clock")) < 60
    assert await value(database, "select steps from noetl.clock") == 0
    assert (metrics.get(metric.CLOCK_STEPS), metrics.get(metric.REAPED, "pulled_back")) == (0, 0)
    assert 3400 <= await seconds_left(database, "available_at") <= 3600


async def test_two_brokers_count_one_step_once(database: Database) -> None:
    """The second one finds it corrected."""
    await queued(database)
    await step_back(database)
    metrics = MetricValues.of_service()
    async with pool_of(database) as one, pool_of(database) as other:
        await asyncio.gather(*(ClockCheck(pool, metrics).run() for pool in (one, other)))
        await ClockCheck(one, metrics).run()
    assert round(metrics.get(metric.CLOCK_STEPS) / 60) == 120
    assert metrics.get(metric.REAPED, "pulled_back") == 1


async def test_a_session_with_a_cursor_finds_jobs_after_the_step(database: Database) -> None:
    """Its cursor of slow scans is a time in the future."""
    await queued(database)
    async with session(database) as own:
        mark = "select set_config('noetl.lease_mark', concat_ws(' ', 0, e + 7220, e + 7200, -2147483648), false)"
        await own.execute(mark + " from extract(epoch from clock_timestamp()) e")
        assert len(await own.fetch("select queue_id from noetl.lease_jobs('w')")) == 1


async def test_the_reaper_goes_on_when_the_clock_check_fails(database: Database) -> None:
    """It requeues a lost lease."""
    await queued(database)
    async with session(database) as own:
        await own.execute("select noetl.lease_jobs('w')")
        await own.execute("update noetl.queue set lease_until = clock_timestamp() - interval '1 s'")
        await own.execute("alter table noetl.clock rename to no_clock")
    metrics = MetricValues.of_service()
    async with pool_of(database) as pool, asyncio.timeout(PATIENCE_SECONDS):
        reaper = Reaper(pool, metrics, max_lost_leases=5, missing_event_seconds=30.0, foreign_lease_grace_seconds=900.0)
        chore = asyncio.create_task(keep_reaping(reaper, ClockCheck(pool, metrics), seconds=0.01, idle_seconds=0.01))
        async with session(database) as own:
            notified: Any = asyncio.Event()
            await own.add_listener("noetl_job", lambda *_: notified.set())
            while not metrics.get(metric.REAPED, "requeued"):
                await asyncio.wait({asyncio.create_task(notified.wait())}, timeout=0.1)
        chore.cancel()
    assert await rows(database, "select status from noetl.queue") == [("queued",)]


async def test_a_delay_is_pulled_back_and_a_moment_is_not(database: Database) -> None:
    """An hour from the beginning, by the new clock; midnight is midnight."""
    await register(
        database,
        """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: wait, for: 1h}
        - {step: b, type: wait, until: "2100-01-01T00:00:00Z"}
        """,
    )
    await start(database)
    await drain(database)
    async with checked_clock(database) as (clock, _):
        await step_back(database)
        await execute(database, "update noetl.timer set due_at = '2100-01-01T00:00:00Z' where is_moment")
        await clock.run()
    left = """
        select step, round(extract(epoch from due_at - clock_timestamp()) / 60), due_at::text
        from noetl.timer
        order by step"""
    [(_, minutes, _), (_, _, moment)] = await rows(database, left)
    assert (57 <= minutes <= 60, moment) == (True, "2100-01-01 00:00:00+00")
