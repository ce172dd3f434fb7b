"""The reaper scans all leases. While that is slow, it scans recently expired ones; it forgets none."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.daemon import reaper
from noetl_broker.daemon.metrics.registry import TURNS
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.daemon.reaper import Reaper
from noetl_broker.store.connect.connection import create_pool
from tests.brokers import execute, register
from tests.postgres import Database
from tests.sessions import Session, put_job, session


async def add_lost_job(own: Session[Any], node: str, *, seconds_ago: float) -> None:
    """Make a job whose lease expired so long ago."""
    await put_job(own, node)
    lost = """
        update noetl.queue
        set status = 'leased', attempts = 1, lease_seconds = 60, worker_id = 'gone',
          first_leased_at = clock_timestamp(), lease_until = clock_timestamp() - make_interval(secs => $1)
        where node_name = $2"""
    await own.execute(lost, seconds_ago, node)


async def three_checks(database: Database) -> tuple[list[int], list[str]]:
    """Run three checks, the first without jobs.

    Gives the counts of requeued jobs, and the jobs still leased after the second check.
    """
    pool = await create_pool(database, name="reaper", size=1, hot=True)
    try:
        async with session(database) as own:
            reaper = Reaper(
                pool,
                MetricValues.of_service(),
                max_lost_leases=5,
                missing_event_seconds=30.0,
                foreign_lease_grace_seconds=900.0,
            )
            found = [(await reaper.run())["requeued"]]
            await add_lost_job(own, "lately", seconds_ago=1)
            await add_lost_job(own, "long_ago", seconds_ago=3600)
            found.append((await reaper.run())["requeued"])
            leased = await own.fetch("select node_name from noetl.queue where status = 'leased'")
            found.append((await reaper.run())["requeued"])
            return found, [row["node_name"] for row in leased]
    finally:
        await pool.close()


async def test_after_a_slow_full_scan_the_reaper_scans_recent_leases_until_one_is_lost(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a lost lease there may be more: the next scan is full."""
    monkeypatch.setattr(reaper, "FULL_SCAN_FACTOR", 1e9)
    assert await three_checks(database) == ([0, 1, 1], ["long_ago"])


async def test_while_full_scans_are_fast_every_scan_is_full(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The normal case."""
    monkeypatch.setattr(reaper, "FULL_SCAN_FACTOR", 0)
    assert await three_checks(database) == ([0, 2, 0], [])


async def test_the_reaper_is_idle_until_something_can_become_late(database: Database) -> None:
    """No execution and no lease is to be watched. A turn of this process ends that."""
    await register(database, "workflow:\n- {step: start}\n")
    pool, metrics = await create_pool(database, name="reaper", size=1, hot=True), MetricValues.of_service()
    watch = Reaper(pool, metrics, max_lost_leases=5, missing_event_seconds=30.0, foreign_lease_grace_seconds=900.0)

    async def is_idle(statement: str) -> bool:
        await execute(database, statement)
        watch._full_scan_at = 0.0
        await watch.run()
        return watch.is_idle

    try:
        assert await is_idle("select 1")
        assert not await is_idle("select noetl.start_execution('story')")
        assert await is_idle("update noetl.execution set status = 'COMPLETED'")
        metrics.add(TURNS, 1, "execution_start", "turn")
        assert not watch.is_idle
        async with session(database) as own:
            await put_job(own, "leased")
        assert not await is_idle("update noetl.queue set status = 'leased', lease_until = 'infinity'")
    finally:
        await pool.close()
