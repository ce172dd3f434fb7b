"""The reaper looks at all leases, or, where that is dear, at those that ran out lately; it forgets none."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.daemon import reaper
from noetl_broker.daemon.reaper import Reaper
from noetl_broker.store.pool import create_pool
from tests.postgres import Database
from tests.sessions import Session, put_job, session


async def put_lost(own: Session[Any], node: str, *, seconds_ago: float) -> None:
    """A job whose lease ran out so long ago."""
    await put_job(own, node)
    lost = """
        update noetl.queue
        set status = 'leased', attempts = 1, lease_seconds = 60, worker_id = 'gone',
          first_leased_at = clock_timestamp(), lease_until = clock_timestamp() - make_interval(secs => $1)
        where node_name = $2"""
    await own.execute(lost, seconds_ago, node)


async def looks_of(database: Database) -> tuple[list[int], list[str]]:
    """What three looks requeue, the first before there is anything, and what is still leased after the second."""
    pool = await create_pool(database.dsn, name="reaper", size=1, hot=True)
    try:
        async with session(database) as own:
            looking = Reaper(pool, max_lost_leases=5, missing_event_seconds=30.0, foreign_lease_grace_seconds=900.0)
            found = [(await looking.look())["requeued"]]
            await put_lost(own, "lately", seconds_ago=1)
            await put_lost(own, "long_ago", seconds_ago=3600)
            found.append((await looking.look())["requeued"])
            left = await own.fetch("select node_name from noetl.queue where status = 'leased'")
            found.append((await looking.look())["requeued"])
            return found, [row["node_name"] for row in left]
    finally:
        await pool.close()


async def test_after_a_dear_look_those_that_ran_out_lately_are_seen_and_all_when_there_were_any(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one is lost there may be more: the look after that is one at everything."""
    monkeypatch.setattr(reaper, "PAUSE_FACTOR", 1e9)
    assert await looks_of(database) == ([0, 1, 1], ["long_ago"])


async def test_while_looks_are_cheap_each_is_one_at_everything(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As nearly always."""
    monkeypatch.setattr(reaper, "PAUSE_FACTOR", 0)
    assert await looks_of(database) == ([0, 2, 0], [])
