"""Sessions have fixed settings, whatever the database sets."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from noetl_broker.store.connect import connection as connection_module
from noetl_broker.store.connect.connection import borrowed, close_quickly, connect, create_pool, transaction
from tests.brokers import execute
from tests.chaos.silent_proxy import SilentProxy
from tests.postgres import Database

PATIENCE_SECONDS = 30.0  # less than the driver waits for an answer


async def test_sessions_use_read_committed(database: Database) -> None:
    """Turns and checks need it; the default of the database may differ."""
    await execute(database, f"alter database {database.name} set default_transaction_isolation = 'serializable'")
    single = await connect(database, name="test")
    try:
        assert await single.fetchval("show transaction_isolation") == "read committed"
    finally:
        await single.close()
    pool = await create_pool(database, name="test", size=1, hot=True)
    try:
        async with pool.acquire() as connection:
            assert await connection.fetchval("show transaction_isolation") == "read committed"
    finally:
        await pool.close()


async def test_a_terminated_session_reports_the_reason_of_the_server(database: Database) -> None:
    """The rollback fails with another error, which is dropped."""
    connection = await connect(database, name="test")
    with pytest.raises(asyncpg.AdminShutdownError):
        async with transaction(connection):
            await connection.execute("select pg_terminate_backend(pg_backend_pid())")


async def test_the_time_limit_includes_the_wait_for_a_connection(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts and never answers takes no more than the limit."""
    monkeypatch.setattr(connection_module, "CONNECT_SECONDS", 3600.0)
    async with SilentProxy(database) as proxy:
        pool = await create_pool(proxy.database, name="test", size=1)
        proxy.stop_answering()
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(TimeoutError):
                async with borrowed(pool, 0.2):
                    pass
        pool.terminate()


async def test_a_connection_to_a_silent_server_is_closed(database: Database) -> None:
    """The driver has tried in vain to cancel the statement."""
    async with SilentProxy(database) as proxy:
        connection = await connect(proxy.database, name="test")
        proxy.stop_answering()
        assert proxy.drop_all(b"test") == 1
        with pytest.raises(TimeoutError):
            await connection.fetchval("select 1", timeout=0.2)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await close_quickly(connection)
        assert connection.is_closed()


async def test_a_cancelled_transaction_does_not_wait_for_a_silent_server(database: Database) -> None:
    """The rollback is not awaited."""
    async with SilentProxy(database, loses=b"select 'lost'") as proxy:
        connection = await connect(proxy.database, name="test")

        async def work() -> None:
            async with transaction(connection):
                await connection.fetchval("select 'lost'")

        working = asyncio.create_task(work())
        await proxy.dropped.wait()
        proxy.stop_answering()
        working.cancel()
        await asyncio.wait([working], timeout=PATIENCE_SECONDS)
        assert working.cancelled()
        assert connection.is_closed()


async def test_an_expired_connection_to_a_silent_server_is_given_back(database: Database) -> None:
    """The driver closes it then, and would wait for the server's answer."""
    async with SilentProxy(database) as proxy:
        pool = await create_pool(proxy.database, name="test", size=1)
        async with asyncio.timeout(PATIENCE_SECONDS), borrowed(pool, PATIENCE_SECONDS):
            await pool.expire_connections()
            proxy.drop_all(b"test")
        assert pool.get_idle_size() == pool.get_size() == 0
        pool.terminate()
