"""Parallel lanes: new mail does not wait for a busy lane, and no lane runs longer than the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from asyncpg import UndefinedTableError

from noetl_broker.daemon import claim_cursor
from noetl_broker.daemon import lanes as lanes_module
from noetl_broker.daemon.lane import ANOTHER_LANE_MAILS, Lane
from noetl_broker.store.connect import connection
from tests.brokers import PATIENCE_SECONDS, complete_jobs, execute, register, running, start, value
from tests.chaos.killed_brokers import broker
from tests.chaos.under_load import leave_core, until
from tests.postgres import Database
from tests.sessions import session

STEP = """
workflow:
- {step: start, next: work}
- {step: work, type: python, code: x, next: end}
- {step: end}
"""
QUICK = "workflow:\n- {step: start, next: end}\n- {step: end}\n"
QUEUED = """
    select not exists (select from noetl.inbox)
      and $1 = (select count(*) from noetl.queue where status = 'queued')"""
ENDED = "select status = 'COMPLETED' from noetl.execution where execution_id = $1"
RUNNING = "select count(*) from noetl.execution where status = 'RUNNING'"
WAIT = "select $1 = count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
ONE_WAITS_AND_ONE_HAS_LOOKED = """
    select exists (
      select
      from pg_stat_activity a
      join pg_stat_activity b using (datname, application_name)
      where a.datname = current_database() and a.wait_event_type = 'Lock'
        and b.state = 'idle' and b.query ilike 'commit%' and b.state_change > a.xact_start
    )"""


@pytest.fixture(autouse=True)
def long_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a turn wait for the test's locks, however slow the machine is."""
    monkeypatch.setitem(connection.SESSION, "lock_timeout", "20s")


@asynccontextmanager
async def held(database: Database, executions: list[int]) -> AsyncIterator[None]:
    """Block the turns of these executions while the block runs."""
    async with session(database) as holder, holder.transaction():
        await holder.execute("select from noetl.execution_state where execution_id = any($1) for update", executions)
        yield


async def test_new_mail_is_taken_by_another_lane_while_one_is_busy(database: Database) -> None:
    """Repeatedly: a lane that has ended is started again."""
    await register(database, STEP)
    await register(database, QUICK, path="quick")
    async with running(database, lanes=3):
        for _ in range(2):
            executions = await start(database, count=2 * ANOTHER_LANE_MAILS)
            await until(database, QUEUED, 2 * ANOTHER_LANE_MAILS)
            async with held(database, executions):
                for lanes_that_wait in (1, 2):
                    assert await complete_jobs(database, limit=ANOTHER_LANE_MAILS) == ANOTHER_LANE_MAILS
                    await until(database, WAIT, lanes_that_wait)
                [quick] = await start(database, "quick")
                await until(database, ENDED, quick)
                assert await value(database, RUNNING) == 2 * ANOTHER_LANE_MAILS
            await until(database, QUEUED, 0)


async def test_new_mail_does_not_wait_for_a_small_batch(database: Database) -> None:
    """A notification starts another lane, also while the batch that works has one mail."""
    await register(database, STEP)
    await register(database, QUICK, path="quick")
    async with running(database, lanes=2, notify="always"):
        executions = await start(database)
        await until(database, QUEUED, 1)
        async with held(database, executions):
            await complete_jobs(database)
            await until(database, WAIT, 1)
            for _ in range(2):  # the second wakes the lane that waits for more
                [quick] = await start(database, "quick")
                await until(database, ENDED, quick)
            assert await value(database, WAIT, 1)
        await until(database, QUEUED, 0)


async def test_a_few_needless_notifications_in_a_row_wake_a_lane(database: Database) -> None:
    """Anybody who can log in can notify: otherwise the lanes keep each other looking."""
    await register(database, STEP)
    executions = await start(database)
    async with asyncio.timeout(PATIENCE_SECONDS), broker(database, lanes=2) as lanes:
        await lanes.drain()
        await complete_jobs(database)
        async with held(database, executions):
            draining = asyncio.create_task(lanes.drain())
            await until(database, WAIT, 1)
            assert lanes.on_mail()
            while lanes.shared.working > 1 or lanes.on_mail():
                await leave_core()
        await draining
    assert await value(database, QUEUED, 0)


async def test_no_lane_starts_after_a_fault_that_stops_the_drain(database: Database) -> None:
    """Notifications come also while the daemon waits before it tries again."""
    await register(database, STEP)
    await start(database)
    async with broker(database, lanes=2) as lanes:
        await execute(database, "alter table noetl.turn rename to away")
        with pytest.raises(UndefinedTableError):
            await lanes.drain()
        assert not lanes.on_mail()


async def test_no_lane_outlasts_the_work(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane without mail waits a moment; the end of the other lane ends its wait."""
    monkeypatch.setattr(lanes_module, "WAIT_SECONDS", 3600.0)
    await register(database, STEP)
    executions = await start(database, count=ANOTHER_LANE_MAILS)
    async with asyncio.timeout(PATIENCE_SECONDS), broker(database, lanes=2) as lanes:
        await lanes.drain()
        await complete_jobs(database)
        troubles: list[str | None] = []
        lanes.shared.on_trouble = troubles.append
        async with held(database, executions[:1]):
            draining = asyncio.create_task(lanes.drain())
            await until(database, ONE_WAITS_AND_ONE_HAS_LOOKED)
            assert troubles == []  # a lane without mail does not end the other lane's trouble
        await draining
    assert await value(database, RUNNING) == 0


@pytest.mark.changes_tables
async def test_a_claim_begins_behind_the_last_full_claim(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims that are not full, or that read the newest mail, do not move the start. A failed batch rewinds it."""
    for name in ("FAST_SECONDS", "MIN_PAUSE_SECONDS", "MAX_FAST_PAUSE_SECONDS"):
        monkeypatch.setattr(claim_cursor, name, 3600.0)
    await register(database, QUICK)
    async with broker(database, lanes=1, batch_size=2) as lanes, session(database) as own:
        await start(database, count=9)
        ids = [row["mail_id"] for row in await own.fetch("select mail_id from noetl.inbox order by mail_id")]
        lane, cursor, starts = Lane(lanes.shared, lambda: None), lanes.shared.cursor, []
        for _ in range(6):
            await lane.step()
            starts.append(cursor.next_start())
        near = cursor.near
        await start(database, count=2)
        await own.execute("alter table noetl.turn rename to away")
        await lane.step()
        failed = cursor.next_start()
        await own.execute("alter table noetl.away rename to turn")
    # two, two, two, the newest two, the last one, none
    assert starts == [ids[1] + 1, ids[3] + 1, ids[5] + 1, ids[5] + 1, near, near]
    assert failed == near
