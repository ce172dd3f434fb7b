"""What lanes say of trouble: that turns can be taken again is known by taking them, not by finding them all taken."""

from __future__ import annotations

import asyncio

from noetl_broker.broker.model import Rules
from noetl_broker.daemon.evaluator import Evaluator
from noetl_broker.daemon.playbooks import Playbooks
from noetl_broker.playbook.findings import Rules as PlaybookRules
from noetl_broker.store.pool import create_pool
from tests.brokers import PATIENCE_SECONDS, register, start
from tests.postgres import Database
from tests.sessions import session


async def test_mail_that_others_hold_says_nothing(database: Database) -> None:
    """Beside another broker that fails as well, each would call the other's tries a success."""
    await register(database, "workflow:\n- {step: start}\n")
    [execution_id] = await start(database)
    told: list[str | None] = []
    stepped = asyncio.Event()
    pool = await create_pool(database.dsn, name="test", size=1, hot=True)
    evaluator = Evaluator(
        pool=pool,
        rules=Rules(),
        playbooks=Playbooks(PlaybookRules()),
        lanes=1,
        batch_size=200,
        max_gathered_bytes=1 << 20,
        stopping=asyncio.Event(),
        on_progress=stepped.set,
        on_trouble=told.append,
    )
    async with session(database) as other, asyncio.timeout(PATIENCE_SECONDS):
        await other.execute("select pg_advisory_lock($1)", execution_id)
        draining = asyncio.create_task(evaluator.drain())
        await stepped.wait()
        assert (told, evaluator.counters.turns) == ([], 0)
        await other.execute("select pg_advisory_unlock($1)", execution_id)
        await draining
    await pool.close()
    assert (set(told), evaluator.counters.turns) == ({None}, 1)
