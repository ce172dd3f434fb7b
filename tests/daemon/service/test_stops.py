"""A stop of the daemon lets the running batch commit."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from noetl_broker.daemon.databases import Databases
from noetl_broker.daemon.service import Service
from tests.brokers import PATIENCE_SECONDS, broken_invariants, drain, execute, options, register, start, value
from tests.chaos.under_load import until
from tests.postgres import Database
from tests.processes import start_command
from tests.sessions import Session, session

NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
# The write of a batch waits until the test gives the lock up.
HELD = """
    create function public.wait() returns trigger language plpgsql as $$
    begin
      perform pg_advisory_xact_lock(42);
      return null;
    end $$;
    create trigger wait before insert on noetl.turn for each statement execute function public.wait()"""
WAITING = """
    select exists (
      select
      from pg_locks
      where locktype = 'advisory' and objid = 42 and not granted
        and database = (select oid from pg_database where datname = current_database())
    )"""
# Tests run in parallel, so each daemon needs its own port.
ALONE = {"NOETL_BROKER_HEALTH_PORT": "0", "NOETL_BROKER_VERIFY_SECONDS": "0"}


@asynccontextmanager
async def held_write(database: Database) -> AsyncIterator[Session]:
    """Start an execution whose first write waits until the block gives the lock 42 up."""
    await register(database, "workflow:\n- {step: start}\n")
    await execute(database, HELD)
    async with session(database) as holder:
        await holder.execute("select pg_advisory_lock(42)")
        await start(database)
        yield holder


async def test_sigterm_lets_the_running_batch_commit_and_exits_with_0(database: Database) -> None:
    """SIGTERM arrives inside the write; connections are closed in time."""
    environment = {**os.environ, **ALONE, "NOETL_BROKER_DSN": database.dsn}
    nothing = subprocess.DEVNULL
    async with held_write(database) as holder:
        process = start_command(["run"], cwd=Path.cwd(), env=environment, stdout=nothing, stderr=nothing)
        try:
            await until(database, WAITING)
            process.send_signal(signal.SIGTERM)
            await start(database)
            await holder.execute("select pg_advisory_unlock(42)")
            assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == 0
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
    assert await value(database, "select count(*) from noetl.turn") >= 1
    await drain(database)
    assert await value(database, "select count(*) from noetl.turn") == 2
    assert await broken_invariants(database) == {}


async def test_a_stop_lets_a_database_finish_while_another_is_away(database: Database) -> None:
    """Running batches commit."""
    stopping = asyncio.Event()
    away = Service(options(Database(name="nowhere", dsn=NOWHERE)), stopping)
    fleet = Databases({"here": Service(options(database), stopping), "away": away}, stopping)
    async with held_write(database) as holder:
        running = asyncio.create_task(fleet.run())
        await until(database, WAITING)
        stopping.set()
        await until(database, WAITING)
        await holder.execute("select pg_advisory_unlock(42)")
        await asyncio.wait_for(running, PATIENCE_SECONDS)
    assert await value(database, "select status from noetl.execution") == "COMPLETED"
