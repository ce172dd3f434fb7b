"""Several databases in one process: a fault of one does not affect the others."""

from __future__ import annotations

import asyncio

from noetl_broker.daemon.databases import Databases
from noetl_broker.daemon.service import Service
from tests.brokers import PATIENCE_SECONDS, execute, options, register, start, value
from tests.chaos.under_load import until
from tests.postgres import Database
from tests.sessions import session

NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
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


async def test_a_stop_lets_a_database_finish_while_another_is_away(database: Database) -> None:
    """Running batches commit."""
    await register(database, "workflow:\n- {step: start}\n")
    await execute(database, HELD)
    stopping = asyncio.Event()
    away = Service(options(Database(name="nowhere", dsn=NOWHERE)), stopping)
    fleet = Databases({"here": Service(options(database), stopping), "away": away}, stopping)
    async with session(database) as holder:
        await holder.execute("select pg_advisory_lock(42)")
        running = asyncio.create_task(fleet.run())
        await start(database)
        await until(database, WAITING)
        stopping.set()
        await until(database, WAITING)
        await holder.execute("select pg_advisory_unlock(42)")
        await asyncio.wait_for(running, PATIENCE_SECONDS)
    assert await value(database, "select status from noetl.execution") == "COMPLETED"
