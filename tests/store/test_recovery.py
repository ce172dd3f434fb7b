"""What an operator calls in SQL: mail put back, by several at once, and by nobody without the right."""

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


async def test_lost_mail_is_put_back_once_however_many_ask(database: Database) -> None:
    """The lock of the execution lets one look at a time."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await execute(database, "delete from noetl.inbox")
    call = f"select noetl.put_back({execution_id})"
    assert sorted(await asyncio.gather(*(value(database, call) for _ in range(8)))) == [0] * 7 + [1]
    assert await rows(database, "select execution_id from noetl.inbox") == [(execution_id,)]


async def test_mail_that_a_broker_holds_is_not_put_back(database: Database) -> None:
    """Whoever asks waits for the broker's commit, and then finds the turn."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    async with session(database) as broker, session(database) as operator:
        transaction = broker.transaction()
        await transaction.start()
        await broker.fetch("select mail_id from noetl.take_mail(10, false, 0)")
        asked = asyncio.create_task(operator.fetchval("select noetl.put_back($1)", execution_id))
        await blocked(broker)
        await broker.execute(
            "insert into noetl.turn (execution_id, turn, event_id, outcome, decided_at)"
            " select execution_id, 1, event_id, 'recorded', now() from noetl.inbox"
        )
        await broker.execute("delete from noetl.inbox")
        await transaction.commit()
        assert await asked == 0
    assert await rows(database, "select mail_id from noetl.inbox") == []


async def test_a_sleeping_broker_hears_of_mail_that_is_put_back(database: Database) -> None:
    """The bell rings as for new mail."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await execute(database, "delete from noetl.inbox")
    sleeps = "select count(*) from pg_locks where locktype = 'advisory' and classid = 1852794228 and objid = 1"
    async with running(database, sweep_seconds=60.0):
        while not await value(database, sleeps):
            pass
        assert await value(database, "select noetl.put_back($1)", execution_id) == 1
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await complete_jobs(database):
                pass
        await until_ended(database)
    assert await broken_invariants(database) == {}


async def test_what_the_broker_wrote_itself_is_no_mail(database: Database) -> None:
    """Nor what it never reads; an execution that has ended is left as it is."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    assert await value(database, "select noetl.put_back($1)", execution_id) == 0


async def test_there_is_nothing_of_an_unknown_execution(database: Database) -> None:
    """NB404."""
    async with session(database) as own, refused("NB404", "no execution 5"):
        await own.execute("select noetl.put_back(5)")


async def test_a_key_is_of_one_execution_and_of_its_fork_or_its_start(database: Database) -> None:
    """NB409, with the execution that has it; the same fork and the same start are given again."""
    await register(database, ONE_STEP)
    one, other = await start(database, count=2)
    fork = """select noetl.fork_execution($1, '{"results": []}', idempotency_key => $2)"""
    begin = "select noetl.start_execution('story', idempotency_key => $1)"
    async with session(database) as own:
        forked, started = await own.fetchval(fork, one, "k"), await own.fetchval(begin, "s")
        assert (await own.fetchval(fork, one, "k"), await own.fetchval(begin, "s")) == (forked, started)
        told = f"key k of story has been used: execution {forked} was forked from {one} with it"
        async with refused("NB409", told):
            await own.fetchval(fork, other, "k")
        async with refused("NB409", told):
            await own.fetchval(begin, "k")
        for execution_id in (one, started):
            async with refused("NB409", f"key s of story has been used: execution {started} was started with it"):
                await own.fetchval(fork, execution_id, "s")
        assert await own.fetchval("select count(*) from noetl.execution") == 4


async def test_of_two_forks_at_once_with_one_key_one_is_refused(database: Database) -> None:
    """Whoever comes second waits for the first one's commit."""
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
async def test_nobody_may_do_it_without_the_right(database: Database, call: str) -> None:
    """Nothing is granted to everybody."""
    name = f"guest_{database.name}"
    await execute(database, f"create role {name}; grant usage on schema noetl to {name}")
    try:
        async with session(database) as own:
            await own.execute(f"set role {name}")
            async with refused("42501"):
                await own.execute(f"select {call}")
    finally:
        await execute(database, f"drop owned by {name}; drop role {name}")
