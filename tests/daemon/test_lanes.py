"""Lanes beside each other: mail that comes while one has much to do is taken by another, and none outlasts the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from noetl_broker.daemon import evaluator as evaluators
from noetl_broker.daemon import low_water
from noetl_broker.daemon.lane import MANY, Lane
from tests.brokers import PATIENCE_SECONDS, complete_jobs, register, running, start, value
from tests.chaos.killing import broker
from tests.chaos.under_load import until
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


@asynccontextmanager
async def held(database: Database, executions: list[int]) -> AsyncIterator[None]:
    """Let whoever writes a turn of these executions wait."""
    async with session(database) as holder, holder.transaction():
        await holder.execute("select from noetl.execution_state where execution_id = any($1) for update", executions)
        yield


async def test_what_comes_while_a_lane_has_much_to_do_is_taken_by_another(database: Database) -> None:
    """As often as that happens: a lane that has ended is there again the next time."""
    await register(database, STEP)
    await register(database, QUICK, path="quick")
    async with running(database, lanes=3):
        for _ in range(2):
            executions = await start(database, count=2 * MANY)
            await until(database, QUEUED, 2 * MANY)
            async with held(database, executions):
                for lanes_that_wait in (1, 2):
                    assert await complete_jobs(database, most=MANY) == MANY
                    await until(database, WAIT, lanes_that_wait)
                [quick] = await start(database, "quick")
                await until(database, ENDED, quick)
                assert await value(database, RUNNING) == 2 * MANY
            await until(database, QUEUED, 0)


async def test_no_lane_outlasts_the_work(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that found nothing looks again after a pause; the end of the other one's work ends that pause."""
    monkeypatch.setattr(evaluators, "LOOK_SECONDS", 3600.0)
    await register(database, STEP)
    executions = await start(database, count=MANY)
    async with asyncio.timeout(PATIENCE_SECONDS), broker(database, lanes=2) as evaluator:
        await evaluator.drain()
        await complete_jobs(database)
        told: list[str | None] = []
        evaluator.on_trouble = told.append
        async with held(database, executions[:1]):
            draining = asyncio.create_task(evaluator.drain())
            await until(database, ONE_WAITS_AND_ONE_HAS_LOOKED)
            assert told == []  # that there is nothing for it says nothing of what the other one tries
        await draining
    assert await value(database, RUNNING) == 0


async def test_a_claim_begins_behind_the_last_full_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind one that was not full there may be more; one that reads the newest mail first says nothing about the rest.

    Where a batch fails, what it claimed is looked at again.
    """
    for name in ("CHEAP_SECONDS", "PAUSE_SECONDS", "CHEAP_PAUSE_SECONDS"):
        monkeypatch.setattr(low_water, name, 3600.0)
    await register(database, QUICK)
    async with broker(database, lanes=1, batch_size=2) as evaluator, session(database) as own:
        await start(database, count=9)
        ids = [row["mail_id"] for row in await own.fetch("select mail_id from noetl.inbox order by mail_id")]
        lane, mark, starts = Lane(evaluator, lambda: None), evaluator.low_water, []
        for _ in range(6):
            await lane.step()
            starts.append(mark.start())
        near = mark.near
        await start(database, count=2)
        await own.execute("alter table noetl.turn rename to away")
        await lane.step()
        failed = mark.start()
        await own.execute("alter table noetl.away rename to turn")
    # two, two, two, the newest two, the one that is left, none
    assert starts == [ids[1] + 1, ids[3] + 1, ids[5] + 1, ids[5] + 1, near, near]
    assert failed == near
