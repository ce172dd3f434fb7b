"""A daemon that comes up before a mountain of unread mail: it begins at once, in flat memory; new mail gets through."""

from __future__ import annotations

import time

import pytest

from tests.brokers import broken_invariants, register, start, value
from tests.chaos.daemons import daemon, resident
from tests.chaos.extent import LONG
from tests.chaos.under_load import Tried, until
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

BACKLOG = 1_000_000 if LONG else 20_000
FRESH = 20 if LONG else 1  # executions that start while the mountain is worked off
PATIENCE_SECONDS = 3000.0 if LONG else 60.0
MOST_BYTES = 300e6
LEAF = 'workflow:\n- {step: start, next: end}\n- {step: end, result: {n: "{{ workload.n }}"}}\n'
FILL = "select count(noetl.start_execution('story', '{\"n\": 1}')) from generate_series(1, $1::int)"
ENDED = "select exists (select from noetl.execution where execution_id = $1 and status = 'COMPLETED')"


async def test_a_backlog_is_worked_off_in_flat_memory_and_starves_nobody(database: Database, tried: Tried) -> None:
    """What starts meanwhile ends before the mountain is gone."""
    await register(database, LEAF)
    async with session(database) as connection:
        await connection.execute("set statement_timeout = 0")
        await connection.fetchval(FILL, BACKLOG, timeout=PATIENCE_SECONDS)
    began = time.monotonic()
    waits, sizes = [], []
    async with daemon(database) as pid:
        await until(database, "select exists (select from noetl.turn)")
        first = time.monotonic() - began
        for _ in range(FRESH):
            (fresh,) = await start(database, payload={"n": 2})
            waits.append(await until(database, ENDED, fresh, patience=PATIENCE_SECONDS))
            sizes.append(resident(pid))
        left = await value(database, "select count(*) from noetl.inbox")
        await until(database, "select not exists (select from noetl.inbox)", patience=PATIENCE_SECONDS)
        sizes.append(resident(pid))
    assert left > 0
    assert max(sizes) < MOST_BYTES
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == BACKLOG + FRESH
    assert await broken_invariants(database) == {}
    tried(
        f"a backlog of {BACKLOG:,}",
        f"first decision {first:.1f} s after the start of the process; new mail waited {sum(waits) / FRESH:.2f} s, "
        f"at most {max(waits):.2f} s; memory {min(sizes) / 1e6:.0f} to {max(sizes) / 1e6:.0f} MB",
    )
