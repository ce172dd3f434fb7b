"""The SQL functions of an operator: put mail back and fork, with rights and locks."""

from __future__ import annotations

import asyncio

import pytest

from tests.brokers import (
    broken_invariants,
    complete_jobs,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    until_ended,
    value,
)
from tests.postgres import Database
from tests.sessions import PATIENCE_SECONDS, blocked, refused, session

ONE_STEP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""


async def test_concurrent_calls_put_lost_mail_back_once(database: Database) -> None:
    """The lock of the execution admits one call at a time."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await execute(database, "delete from noetl.inbox")
    call = f"select noetl.put_back({execution_id})"
    assert sorted(await asyncio.gather(*(value(database, call) for _ in range(8)))) == [0] * 7 + [1]
    assert await rows(database, "select execution_id from noetl.inbox") == [(execution_id,)]


async def test_lost_mail_is_put_back_beside_dead_letters(database: Database) -> None:
    """Each event once."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    letter = """
        insert into noetl.dead_letter (execution_id, event_id, reason)
        select execution_id, event_id, 'bad' from noetl.inbox"""
    await execute(database, letter)
    await execute(database, "select noetl.cancel_execution($1)", execution_id)
    await execute(database, "delete from noetl.inbox")
    assert await value(database, "select noetl.put_back($1)", execution_id) == 2
    assert await value(database, "select count(distinct event_id) from noetl.inbox") == 2


async def test_mail_that_a_broker_holds_is_not_put_back(database: Database) -> None:
    """The call waits for the commit of the broker and then finds the turn."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    async with session(database) as broker, session(database) as operator:
        transaction = broker.transaction()
        await transaction.start()
        await broker.fetch("select mail_id from noetl.take_mail(10, false, 0)")
        waiting = asyncio.create_task(operator.fetchval("select noetl.put_back($1)", execution_id))
        await blocked(broker)
        await broker.execute(
            "insert into noetl.turn (execution_id, turn, event_id, outcome, decided_at)"
            " select execution_id, 1, event_id, 'recorded', now() from noetl.inbox"
        )
        await broker.execute("delete from noetl.inbox")
        await transaction.commit()
        assert await waiting == 0
    assert await rows(database, "select mail_id from noetl.inbox") == []


async def test_a_sleeping_broker_is_notified_of_mail_that_is_put_back(database: Database) -> None:
    """As of new mail."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await execute(database, "delete from noetl.inbox")
    sleeps = """
        select count(*)
        from pg_locks
        where locktype = 'advisory' and classid = hashtext('noetl.lock')::oid and objid = 1
          and database = (select oid from pg_database where datname = current_database())"""
    async with running(database, sweep_seconds=600.0):
        while not await value(database, sleeps):
            pass
        assert await value(database, "select noetl.put_back($1)", execution_id) == 1
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await complete_jobs(database):
                pass
        await until_ended(database)
    assert await broken_invariants(database) == {}


async def test_put_back_ignores_events_of_the_broker(database: Database) -> None:
    """It ignores types without decisions and ended executions too."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    assert await value(database, "select noetl.put_back($1)", execution_id) == 0


async def test_put_back_refuses_an_unknown_execution(database: Database) -> None:
    """NB404."""
    async with session(database) as own, refused("NB404", "no execution 5"):
        await own.execute("select noetl.put_back(5)")


async def test_an_idempotency_key_belongs_to_one_start_or_fork(database: Database) -> None:
    """NB409 names its execution. The same start or fork returns its execution again."""
    await register(database, ONE_STEP)
    one, other = await start(database, count=2)
    fork = """select noetl.fork_execution($1, '{"results": []}', idempotency_key => $2)"""
    begin = "select noetl.start_execution('story', idempotency_key => $1)"
    async with session(database) as own:
        forked, started = await own.fetchval(fork, one, "k"), await own.fetchval(begin, "s")
        assert (await own.fetchval(fork, one, "k"), await own.fetchval(begin, "s")) == (forked, started)
        message = f"key k of story is used: execution {forked} was forked from {one} with it"
        async with refused("NB409", message):
            await own.fetchval(fork, other, "k")
        async with refused("NB409", message):
            await own.fetchval(begin, "k")
        for execution_id in (one, started):
            async with refused("NB409", f"key s of story is used: execution {started} was started with it"):
                await own.fetchval(fork, execution_id, "s")
        assert await own.fetchval("select count(*) from noetl.execution") == 4


async def test_concurrent_forks_with_one_key_make_one_fork(database: Database) -> None:
    """The second waits for the commit of the first and is refused."""
    await register(database, ONE_STEP)
    one, other = await start(database, count=2)
    fork = """select noetl.fork_execution($1, '{"results": []}', idempotency_key => 'k')"""
    async with session(database) as first, session(database) as second:
        transaction = first.transaction()
        await transaction.start()
        forked = await first.fetchval(fork, one)
        waiting = asyncio.create_task(second.fetchval(fork, other))
        await blocked(first)
        await transaction.commit()
        async with refused("NB409", f"execution {forked} was forked from {one} with it"):
            await waiting


@pytest.mark.parametrize("call", ["noetl.put_back(1)", "noetl.fork_execution(1, '{}')"])
async def test_put_back_and_fork_need_a_grant(database: Database, call: str) -> None:
    """PUBLIC has no rights."""
    name = f"guest_{database.name}"
    await execute(database, f"create role {name}; grant usage on schema noetl to {name}")
    try:
        async with session(database) as own:
            await own.execute(f"set role {name}")
            async with refused("42501"):
                await own.execute(f"select {call}")
    finally:
        await execute(database, f"drop owned by {name}; drop role {name}")
