"""A daemon that starts with a large backlog begins at once, uses constant memory, and serves new mail."""

from __future__ import annotations

import time

import pytest

from tests.brokers import broken_invariants, register, start, value
from tests.chaos.daemons import daemon, resident
from tests.chaos.sampling import LONG
from tests.chaos.under_load import Tried, until
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

BACKLOG = 1_000_000 if LONG else 20_000
FRESH = 20 if LONG else 1  # executions that start during the backlog
PATIENCE_SECONDS = 3000.0 if LONG else 60.0
MOST_BYTES = 300e6
LEAF = 'workflow:\n- {step: start, next: end}\n- {step: end, result: {n: "{{ workload.n }}"}}\n'
FILL = "select count(noetl.start_execution('story', '{\"n\": 1}')) from generate_series(1, $1::int)"
ENDED = "select exists (select from noetl.execution where execution_id = $1 and status = 'COMPLETED')"


async def test_a_backlog_takes_constant_memory_and_delays_no_new_execution(database: Database, tried: Tried) -> None:
    """An execution that starts during the backlog ends before the backlog does."""
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
        unread = await value(database, "select count(*) from noetl.inbox")
        await until(database, "select not exists (select from noetl.inbox)", patience=PATIENCE_SECONDS)
        sizes.append(resident(pid))
    assert unread > 0
    assert max(sizes) < MOST_BYTES
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == BACKLOG + FRESH
    assert await broken_invariants(database) == {}
    tried(
        f"a backlog of {BACKLOG:,}",
        f"first decision {first:.1f} s after the start of the process; new mail waited {sum(waits) / FRESH:.2f} s, "
        f"at most {max(waits):.2f} s; memory {min(sizes) / 1e6:.0f} to {max(sizes) / 1e6:.0f} MB",
    )
