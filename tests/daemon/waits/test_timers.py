"""Timers end waits at their moment, whoever wrote them, and beside any number of brokers."""

from __future__ import annotations

import pytest

from noetl_broker.daemon import timers
from noetl_broker.daemon.metrics.registry import TIMERS_FIRED
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.store.connect.connection import create_pool
from tests.brokers import broken_invariants, drain, execute, register, rows, running, start, until_ended, value
from tests.postgres import Database

COOL = """
workflow:
- {step: start, next: cool}
- {step: cool, type: wait, for: "{{ workload.seconds }}", next: end}
- {step: end, result: "{{ cool.waited_until }}"}
"""
EARLIEST = """
select min(extract(epoch from e.created_at - (e.context ->> 'due_at')::timestamptz))::float8
from noetl.event e
where e.event_type = 'timer_due'"""


class SlowClock:
    """A clock by which each scan takes a second."""

    def __init__(self) -> None:
        """Begin at any time."""
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        """Give the time, which goes on with each call."""
        self.now += 1.0
        return self.now


@pytest.fixture
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a broker look for timers only at the moments that it knows: any other poll comes after the test."""
    monkeypatch.setattr(timers, "POLL_SECONDS", 3600.0)


@pytest.mark.usefixtures("no_polls")
async def test_a_wait_ends_at_its_moment(database: Database) -> None:
    """A running broker sleeps until then."""
    await register(database, COOL)
    async with running(database, sweep_seconds=600.0):
        [execution_id] = await start(database, payload={"seconds": 0.5})
        await until_ended(database)
    [(status, waited)] = await rows(
        database, "select status, ended_at - started_at from noetl.execution where execution_id = $1", execution_id
    )
    assert (status, waited.total_seconds() >= 0.5) == ("COMPLETED", True)
    assert await rows(database, "select * from noetl.timer") == []
    assert await value(database, "select status from noetl.wait") == "done"


@pytest.mark.usefixtures("no_polls")
async def test_an_earlier_timer_of_another_process_wakes_a_sleeping_broker(database: Database) -> None:
    """The broker sleeps until a timer that is an hour away; a writer notifies."""
    await register(database, COOL)
    await start(database, payload={"seconds": 3600})
    await drain(database)
    async with running(database, sweep_seconds=600.0):
        await execute(
            database,
            """
            with earlier as (
              update noetl.timer set due_at = clock_timestamp() + interval '200 ms' returning due_at
            )
            select noetl.notify_timers(due_at) from earlier""",
        )
        await until_ended(database)
    assert await value(database, EARLIEST) >= 0


async def test_a_drain_fires_what_is_due_and_does_not_wait_for_the_rest(database: Database) -> None:
    """Of two waits, one is due."""
    await register(database, COOL)
    await start(database, payload={"seconds": 3600})
    await start(database, payload={"seconds": 3600})
    await drain(database)
    await execute(database, "update noetl.timer set due_at = clock_timestamp() where timer_id = 1")
    service = await drain(database)
    assert service.metrics.get(TIMERS_FIRED) == 1
    assert await rows(database, "select status, count(*) from noetl.execution group by 1 order by 1") == [
        ("COMPLETED", 1),
        ("RUNNING", 1),
    ]


async def test_each_timer_fires_once_beside_three_brokers(database: Database) -> None:
    """Each execution reads one timer_due."""
    await register(database, COOL)
    await start(database, payload={"seconds": 3600}, count=300)
    await drain(database)
    await execute(database, "update noetl.timer set due_at = clock_timestamp() + interval '300 ms'")
    async with running(database), running(database), running(database):
        await until_ended(database)
    assert await value(database, "select count(*) from noetl.event where event_type = 'timer_due'") == 300
    assert await broken_invariants(database) == {}


async def test_after_a_slow_scan_only_recent_timers_are_looked_for_until_the_next_full_scan(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timer that has been due for a minute waits for that, and is not forgotten."""
    clock = SlowClock()
    monkeypatch.setattr(timers, "time", clock)
    await register(database, COOL)
    await start(database, payload={"seconds": 3600}, count=2)
    await drain(database)
    pool = await create_pool(database, name="test", size=1, hot=True)
    try:
        firing = timers.Timers(pool, MetricValues.of_service(), on_fired=lambda: None)
        counts = [(await firing.fire()).fired]
        await execute(database, "update noetl.timer set due_at = clock_timestamp() - timer_id * interval '59 seconds'")
        counts.append((await firing.fire()).fired)
        clock.now += 2 * timers.FULL_SCAN_FACTOR
        counts.append((await firing.fire()).fired)
    finally:
        await pool.close()
    assert counts == [0, 1, 1]
