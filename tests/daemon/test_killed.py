"""Daemons as processes: killed with -9 inside their write, stopped politely, and started beside each other."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from noetl_broker.store.pool import connect
from tests.brokers import PATIENCE_SECONDS, broken_invariants, complete_jobs, execute, register, start, value
from tests.postgres import Database

CHAIN = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: [{when: "a.ok", step: j}]}
- {step: b, type: python, code: x, next: j}
- {step: j, type: python, code: x, next: end}
- {step: end}
"""
# A port can be had once, and other tests run beside these.
ALONE = {"NOETL_BROKER_HEALTH_PORT": "0", "NOETL_BROKER_VERIFY_SECONDS": "0"}
# Makes the write long enough to be met in it; the daemon does not know.
SLOW_WRITE = """
create function public.dawdle() returns trigger language plpgsql
as $$ begin perform pg_sleep(0.02); return null; end $$;
create trigger dawdle after insert on noetl.turn for each statement execute function public.dawdle();
"""
IN_WRITE = """
select count(*)
from pg_stat_activity
where datname = current_database() and application_name = 'noetl-broker run' and state = 'active'
  and query like '%with turns as materialized%'"""


@asynccontextmanager
async def daemon(database: Database, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command `run` in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "noetl_broker", "run", *arguments,
        env={**os.environ, **ALONE, "NOETL_BROKER_DSN": database.dsn, "NOETL_BROKER_LOG_FORMAT": "json"},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until_writing(connection: asyncpg.Connection[Any]) -> None:
    """Wait until a daemon is inside its write."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await connection.fetchval(IN_WRITE):
            pass


async def test_killed_inside_its_write_a_daemon_loses_and_doubles_nothing(database: Database) -> None:
    """A process is killed with -9 again and again while Postgres shows it in its write; a last one finishes."""
    await register(database, CHAIN)
    await execute(database, SLOW_WRITE)
    await start(database, count=60)
    connection = await connect(database.dsn, name="test")
    kills = 0
    try:
        while kills < 6:
            async with daemon(database) as process:
                await until_writing(connection)
                process.kill()
                await process.wait()
                kills += 1
            await complete_jobs(database, {"ok": True}, most=30)
        async with daemon(database):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await connection.fetchval("select count(*) from noetl.execution where status = 'RUNNING'"):
                    await complete_jobs(database, {"ok": True})
    finally:
        await connection.close()
    assert await broken_invariants(database) == {}
    assert await value(database, "select count(*) from noetl.event where event_type = 'step_completed'") == 180


async def test_sigterm_lets_the_turns_under_way_commit_and_ends_with_0(database: Database) -> None:
    """Asked to stop inside its write, it commits, closes its connections, and exits 0 in time."""
    await register(database, CHAIN)
    await execute(database, SLOW_WRITE)
    await start(database, count=5)
    connection = await connect(database.dsn, name="test")
    try:
        async with daemon(database) as process:
            await until_writing(connection)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        await connection.close()
    assert await value(database, "select count(*) from noetl.turn") >= 1
    async with daemon(database, "--drain") as process:
        assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 0
    assert await value(database, "select count(*) from noetl.turn") == 5
    assert await broken_invariants(database, but=("every execution ended",)) == {}


async def test_a_killed_daemons_mail_is_taken_by_the_one_beside_it(database: Database) -> None:
    """Two daemons; one dies inside its write; the other takes over within the session's limits."""
    await register(database, CHAIN)
    await execute(database, SLOW_WRITE)
    connection = await connect(database.dsn, name="test")
    try:
        async with daemon(database) as first, daemon(database):
            await start(database, count=30)
            await until_writing(connection)
            first.kill()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await connection.fetchval("select count(*) from noetl.execution where status = 'RUNNING'"):
                    await complete_jobs(database, {"ok": True})
    finally:
        await connection.close()
    assert await broken_invariants(database) == {}
