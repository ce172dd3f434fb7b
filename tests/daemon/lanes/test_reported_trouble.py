"""When lanes report trouble and its end."""

from __future__ import annotations

import asyncio

from noetl_broker.broker.model.rules import Rules
from noetl_broker.daemon.lane import LaneResources
from noetl_broker.daemon.lanes import Lanes
from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.daemon.playbook_cache import PlaybookCache
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.connect.connection import create_pool
from tests.brokers import PATIENCE_SECONDS, register, start
from tests.postgres import Database
from tests.sessions import session


async def test_mail_that_another_broker_holds_does_not_end_the_trouble(database: Database) -> None:
    """Otherwise two failing brokers would count each other's attempts as success."""
    await register(database, "workflow:\n- {step: start}\n")
    [execution_id] = await start(database)
    troubles: list[str | None] = []
    stepped = asyncio.Event()
    pool = await create_pool(database, name="test", size=1, hot=True)
    shared = LaneResources(
        pool=pool,
        rules=Rules(),
        playbooks=PlaybookCache(PlaybookRules()),
        batch_size=200,
        max_gathered_bytes=1 << 20,
        on_progress=stepped.set,
        on_trouble=troubles.append,
    )
    lanes = Lanes(shared=shared, count=1, stopping=asyncio.Event())
    async with session(database) as other, asyncio.timeout(PATIENCE_SECONDS):
        await other.execute("select pg_advisory_lock($1)", execution_id)
        draining = asyncio.create_task(lanes.drain())
        await stepped.wait()
        assert (troubles, shared.metrics.total(metric.TURNS)) == ([], 0)
        await other.execute("select pg_advisory_unlock($1)", execution_id)
        await draining
    await pool.close()
    assert (set(troubles), shared.metrics.total(metric.TURNS)) == ({None}, 1)
