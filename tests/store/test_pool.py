"""What a session of ours is, whatever the database's own settings say."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from noetl_broker.store.pool import CLOSE_SECONDS, CONNECT_SECONDS, connect, create_pool, hang_up, lent, transaction
from tests.brokers import execute
from tests.chaos.swallow import Swallower
from tests.postgres import Database


async def test_what_is_read_under_a_lock_was_committed_before_it(database: Database) -> None:
    """Turns, registers and checks count on READ COMMITTED; another default is the database's for others."""
    await execute(database, f"alter database {database.name} set default_transaction_isolation = 'serializable'")
    single = await connect(database.dsn, name="test")
    try:
        assert await single.fetchval("show transaction_isolation") == "read committed"
    finally:
        await single.close()
    pool = await create_pool(database.dsn, name="test", size=1, hot=True)
    try:
        async with pool.acquire() as connection:
            assert await connection.fetchval("show transaction_isolation") == "read committed"
    finally:
        await pool.close()


async def test_a_session_that_the_server_ends_in_a_transaction_says_why(database: Database) -> None:
    """Not that it is closed, which the driver says of the rollback: whether to try with less hangs on the reason."""
    connection = await connect(database.dsn, name="test")
    with pytest.raises(asyncpg.AdminShutdownError):
        async with transaction(connection):
            await connection.execute("select pg_terminate_backend(pg_backend_pid())")


async def test_the_wait_for_a_connection_counts(database: Database) -> None:
    """Whoever has so many seconds has them for both: a server that accepts and never answers takes no more."""
    async with Swallower(database) as wire:
        pool = await create_pool(wire.database.dsn, name="test", size=1)
        wire.stay_silent()
        began_at = time.monotonic()
        with pytest.raises(TimeoutError):
            async with lent(pool, 0.2):
                pass
        pool.terminate()
    assert time.monotonic() - began_at < CONNECT_SECONDS / 2


async def test_a_connection_that_nobody_answers_is_hung_up(database: Database) -> None:
    """With a statement under way which the driver has asked the server, in vain, to cancel."""
    async with Swallower(database) as wire:
        connection = await connect(wire.database.dsn, name="test")
        wire.stay_silent()
        assert wire.swallow(b"test") == 1
        with pytest.raises(TimeoutError):
            await connection.fetchval("select 1", timeout=0.2)
        async with asyncio.timeout(CLOSE_SECONDS * 2):
            await hang_up(connection)
        assert connection.is_closed()


async def test_a_transaction_that_is_given_up_does_not_wait_for_a_silent_server(database: Database) -> None:
    """Its end is the reason to give it up; the rollback that nobody answers is left to the server."""
    async with Swallower(database, loses=b"select 'lost'") as wire:
        connection = await connect(wire.database.dsn, name="test")

        async def work() -> None:
            async with transaction(connection):
                await connection.fetchval("select 'lost'")

        working = asyncio.create_task(work())
        await wire.swallowed.wait()
        wire.stay_silent()
        working.cancel()
        await asyncio.wait([working], timeout=CLOSE_SECONDS * 2)
        assert working.cancelled()
        assert connection.is_closed()
