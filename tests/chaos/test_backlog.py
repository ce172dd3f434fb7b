"""A daemon that starts with a large backlog begins at once, uses constant memory, and serves new mail."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import pytest

from tests.brokers import broken_invariants, register, start, value
from tests.chaos.daemons import daemon, resident
from tests.chaos.sampling import LONG
from tests.chaos.under_load import Tried, until
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

BACKLOG = 1_000_000 if LONG else 5_000
FRESH = 20 if LONG else 1  # executions that start during the backlog
PATIENCE_SECONDS = 3000.0 if LONG else 300.0
MOST_BYTES = 300e6
LEAF = 'workflow:\n- {step: start, next: end}\n- {step: end, result: {n: "{{ workload.n }}"}}\n'
FILL = "select count(noetl.start_execution('story', '{\"n\": 1}')) from generate_series(1, $1::int)"
ENDED = "select exists (select from noetl.execution where execution_id = $1 and status = 'COMPLETED')"
ENDED_LATER = """
    select count(*)
    from noetl.execution x
    join noetl.execution f on f.execution_id = $1
    where x.ended_at > f.ended_at"""
PATIENT = "set idle_in_transaction_session_timeout = 0; set lock_timeout = 0"
# While a test holds this lock, a daemon decides, and waits to write.
NO_TURNS = "begin; lock table noetl.turn in share mode"
WANTS_TO_WRITE = """
    select exists (select from pg_locks where relation = 'noetl.turn'::regclass and not granted
      and database = (select oid from pg_database where datname = current_database()))"""


async def test_a_backlog_takes_constant_memory_and_delays_no_new_execution(database: Database, tried: Tried) -> None:
    """An execution that starts after the daemon's first claim ends before half of the backlog does."""
    await register(database, LEAF)
    async with session(database) as connection:
        await connection.execute("set statement_timeout = 0")
        await connection.fetchval(FILL, BACKLOG, timeout=PATIENCE_SECONDS)
    waits, sizes, fresh = [], [], 0
    async with session(database) as other, AsyncExitStack() as stack:
        await other.execute(PATIENT)
        await other.execute(NO_TURNS)
        began = time.monotonic()
        pid = await stack.enter_async_context(daemon(database))
        await until(database, WANTS_TO_WRITE, patience=PATIENCE_SECONDS)
        first = time.monotonic() - began
        for _ in range(FRESH):
            [fresh] = await start(database, payload={"n": 2})
            await other.execute("commit")
            waits.append(await until(database, ENDED, fresh, patience=PATIENCE_SECONDS))
            sizes.append(resident(pid))
            await other.execute(NO_TURNS)
        await other.execute("commit")
        # Each poll passes all deleted rows.
        await until(database, "select not exists (select from noetl.inbox)", patience=PATIENCE_SECONDS, pause=0.2)
        sizes.append(resident(pid))
    assert await value(database, ENDED_LATER, fresh) > BACKLOG / 2
    assert max(sizes) < MOST_BYTES
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == BACKLOG + FRESH
    assert await broken_invariants(database) == {}
    tried(
        f"a backlog of {BACKLOG:,}",
        f"first decisions {first:.1f} s after the start of the process; new mail waited {sum(waits) / FRESH:.2f} s, "
        f"at most {max(waits):.2f} s; memory {min(sizes) / 1e6:.0f} to {max(sizes) / 1e6:.0f} MB",
    )
