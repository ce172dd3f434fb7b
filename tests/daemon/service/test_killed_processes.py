"""Daemons as processes that are killed inside their write, stopped, or run beside each other."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from noetl_broker.store.connection import connect
from tests.brokers import PATIENCE_SECONDS, broken_invariants, complete_jobs, execute, register, start, value
from tests.chaos.under_load import leave_core
from tests.postgres import Database
from tests.processes import Process, start_command

CHAIN = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: [{when: "a.ok", step: j}]}
- {step: b, type: python, code: x, next: j}
- {step: j, type: python, code: x, next: end}
- {step: end}
"""
# Tests run in parallel, so each daemon needs its own port.
ALONE = {"NOETL_BROKER_HEALTH_PORT": "0", "NOETL_BROKER_VERIFY_SECONDS": "0"}
# Makes the write slow enough to kill the daemon inside it.
SLOW_WRITE = """
create function public.dawdle() returns trigger language plpgsql
as $$ begin perform pg_sleep(0.02); return null; end $$;
create trigger dawdle after insert on noetl.turn for each statement execute function public.dawdle();
"""
IN_WRITE = """
select count(*)
from pg_stat_activity
where datname = current_database()
  and application_name in ('noetl-broker run', 'noetl-broker run noetl')
  and state = 'active'
  and query like '%with turns as materialized%'"""


@asynccontextmanager
async def daemon(database: Database, *arguments: str) -> AsyncIterator[Process]:
    """Run the command `run` in a process of its own."""
    environment = {**os.environ, **ALONE, "NOETL_BROKER_DSN": database.dsn, "NOETL_BROKER_LOG_FORMAT": "json"}
    nothing = subprocess.DEVNULL
    process = start_command(["run", *arguments], cwd=Path.cwd(), env=environment, stdout=nothing, stderr=nothing)
    try:
        yield process
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


async def until_writing(connection: asyncpg.Connection[Any]) -> None:
    """Wait until a daemon executes its write."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await connection.fetchval(IN_WRITE):
            await leave_core()


async def test_a_daemon_killed_inside_its_write_loses_and_repeats_nothing(database: Database) -> None:
    """SIGKILL again and again while Postgres runs the write; a last daemon finishes."""
    await register(database, CHAIN)
    await execute(database, SLOW_WRITE)
    await start(database, count=60)
    connection = await connect(database, name="test")
    kills = 0
    try:
        while kills < 2:
            async with daemon(database) as process:
                await until_writing(connection)
                process.kill()
                await asyncio.to_thread(process.wait)
                kills += 1
            await complete_jobs(database, {"ok": True}, limit=30)
        async with daemon(database):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await connection.fetchval("select count(*) from noetl.execution where status = 'RUNNING'"):
                    if not await complete_jobs(database, {"ok": True}):
                        await leave_core()
    finally:
        await connection.close()
    assert await broken_invariants(database) == {}
    assert await value(database, "select count(*) from noetl.event where event_type = 'step_completed'") == 180


async def test_sigterm_lets_the_running_batch_commit_and_exits_with_0(database: Database) -> None:
    """SIGTERM arrives inside the write; connections are closed in time."""
    await register(database, CHAIN)
    await execute(database, SLOW_WRITE)
    await start(database, count=5)
    connection = await connect(database, name="test")
    try:
        async with daemon(database) as process:
            await until_writing(connection)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == 0
    finally:
        await connection.close()
    assert await value(database, "select count(*) from noetl.turn") >= 1
    async with daemon(database, "--drain") as process:
        assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == 0
    assert await value(database, "select count(*) from noetl.turn") == 5
    assert await broken_invariants(database, ignore=("every execution ended",)) == {}
