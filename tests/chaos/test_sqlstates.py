"""What a daemon does about each database fault: nothing is lost, and there are no needless dead letters."""

from __future__ import annotations

import asyncio

import pytest

from noetl_broker.daemon.service import Service
from noetl_broker.errors import SchemaFault
from noetl_broker.store.connect.sqlstates import FAULT_CLASSES, Remedy
from tests.brokers import PATIENCE_SECONDS, broken_invariants, execute, options, rows, running, start, value
from tests.chaos.sampling import sample
from tests.chaos.under_load import Tried, finish_all, leave_core, prepare, until
from tests.postgres import Database

pytestmark = pytest.mark.chaos

TIMES = 3
# A sequence also counts attempts that are rolled back.
INJECT = """
create sequence public.tried;
create function public.inject() returns trigger language plpgsql as $$
begin
  if nextval('public.tried') <= {times} then
    raise exception 'injected' using errcode = '{state}';
  end if;
  return null;
end $$;
create trigger inject after insert on noetl.turn for each statement execute function public.inject()"""
TOO_MANY = """
create function public.inject() returns trigger language plpgsql as $$
begin
  if (select count(*) from many) > 30 then
    raise exception 'out of shared memory' using errcode = '53200';
  end if;
  return null;
end $$;
create trigger inject after insert on noetl.turn
referencing new table as many for each statement execute function public.inject()"""
MET = "select last_value >= $1 from public.tried"
STATES = [
    "08006", "08003", "08P01", "25006", "25P02", "25P03", "25P04", "26000", "28P01", "3D000", "3F000", "40001", "40P01",
    "42501", "42P05", "42703", "42883", "42P01", "53000", "53100", "53200", "53300", "55P03", "57014", "57P01", "57P02",
    "57P03", "58030", "NB503",
]  # fmt: skip


def test_every_sqlstate_of_the_table_is_tested() -> None:
    """Each code and each class of the table is injected."""
    assert {name for name in FAULT_CLASSES if not any(state.startswith(name) for state in STATES)} == set()


@pytest.mark.parametrize("state", sample(STATES, 3))
async def test_a_passing_fault_makes_no_dead_letter(database: Database, state: str, tried: Tried) -> None:
    """The write fails three times with this SQLSTATE; then the same daemon completes all executions."""
    await prepare(database)
    await execute(database, INJECT.format(state=state, times=TIMES))
    async with running(database, lanes=1):
        await start(database, count=5)
        await until(database, MET, TIMES)
        seconds = await until(database, MET, TIMES + 1)
        await finish_all(database)
    assert await broken_invariants(database) == {}
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == 5
    tried(f"SQLSTATE {state} three times in the write", f"0 lost, 0 set aside, went on after {seconds:.2f} s")


async def test_a_batch_too_large_for_the_lock_table_is_halved(database: Database, tried: Tried) -> None:
    """The server can lock 30 executions: the daemon finds a batch size that works."""
    await prepare(database)
    await execute(database, TOO_MANY)
    await start(database, count=200)
    async with running(database, lanes=1):
        seconds = await finish_all(database)
    assert await broken_invariants(database) == {}
    sizes = [count for (count,) in await rows(database, "select count(*) from noetl.turn group by xmin::text")]
    assert max(sizes) <= 30
    tried("53200 above 30 events a transaction", f"0 lost, 400 turns in {len(sizes)} transactions, {seconds:.1f} s")


async def test_a_daemon_waits_for_a_revoked_right(database: Database, tried: Tried) -> None:
    """It makes no dead letter, and continues when the right is granted again."""
    await prepare(database)
    role = f"broker_of_{database.name}"
    await execute(
        database,
        f"""
        create role {role} login password 'x';
        grant usage on schema noetl to {role};
        grant all on all tables in schema noetl to {role};
        grant all on all sequences in schema noetl to {role};
        grant execute on all functions in schema noetl to {role}""",
    )
    where = database.dsn.partition("@")[2]
    own = Database(name=database.name, dsn=f"postgresql://{role}:x@{where}")
    try:
        async with running(own) as service:
            await execute(database, f"revoke insert on noetl.turn from {role}")
            await start(database, count=5)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while service.metrics.retries < 3:
                    await leave_core()
            await execute(database, f"grant insert on noetl.turn to {role}")
            seconds = await finish_all(database)
        assert await broken_invariants(database) == {}
        tried("a right revoked at run time, and granted again", f"0 lost, 0 set aside, went on within {seconds:.1f} s")
    finally:
        await execute(database, f"drop owned by {role}; drop role {role}")


@pytest.mark.parametrize("table", ["turn", "inbox"])
async def test_a_dropped_table_ends_the_daemon(database: Database, table: str, tried: Tried) -> None:
    """At work or asleep, with exit code 78."""
    await prepare(database)
    ready = asyncio.Event()
    service = Service(options(database, sweep_seconds=0.2), on_ready=ready.set)
    task = asyncio.create_task(service.run())
    await asyncio.wait_for(ready.wait(), PATIENCE_SECONDS)
    if table == "turn":
        await execute(database, "drop table noetl.turn cascade")
        await start(database)
    else:
        await execute(database, "drop table noetl.inbox cascade")
    with pytest.raises(SchemaFault, match=r"a part of the schema is gone .*noetl-broker migrate"):
        await asyncio.wait_for(task, PATIENCE_SECONDS)
    tried(f"noetl.{table} dropped under a daemon", "ends with 78 and a word")


def test_no_sqlstate_of_the_table_blames_the_mail() -> None:
    """SQLSTATEs outside the table do."""
    assert [name for name, fault_class in FAULT_CLASSES.items() if fault_class.remedy is Remedy.BLAME] == []
