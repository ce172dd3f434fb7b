"""Connections to a test's database, jobs inserted by hand, and expected errors of Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import asyncpg
import pytest

from noetl_broker.store.connect.connection import Pool, connect, create_pool
from tests.postgres import Database

Session = asyncpg.Connection
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.005  # polls without end take a core from what they wait for
UNHURRIED = "set idle_in_transaction_session_timeout = '5min'; set lock_timeout = '1min'"
# Pools of the running test by their event loop, and by what they are for.
_idle: dict[tuple[asyncio.AbstractEventLoop, object], list[Pool]] = {}


@asynccontextmanager
async def session(database: Database) -> AsyncIterator[Session[Any]]:
    """Open a connection with the program's JSON codecs; each statement commits by itself.

    It may hold a lock and wait for one longer than the program: a busy machine needs more time between two statements.
    """
    connection = await connect(database, name="test")
    try:
        await connection.execute(UNHURRIED)
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def pooled_session(database: Database) -> AsyncIterator[Session[Any]]:
    """Lend a connection; the next statement of this test gets the same one, if it is free."""
    async with (
        lent_pool(database, lambda: create_pool(database, name="test", size=1, transaction_seconds=0)) as pool,
        pool.acquire() as connection,
    ):
        yield cast("Session[Any]", connection)


@asynccontextmanager
async def lent_pool(purpose: object, make: Callable[[], Awaitable[Pool]]) -> AsyncIterator[Pool]:
    """Lend a pool of this test, or make one; the fixture of the database closes all at the end of the test."""
    idle = _idle.setdefault((asyncio.get_running_loop(), purpose), [])
    pool = idle.pop() if idle else await make()
    try:
        yield pool
    finally:
        idle.append(pool)


async def close_pools() -> None:
    """Close the pools of this event loop; a connection that is in use does not delay it."""
    loop = asyncio.get_running_loop()
    for key in [key for key in _idle if key[0] is loop]:
        for pool in _idle.pop(key):
            pool.terminate()


async def put_job(own: Session[Any], node: str = "a", **columns: Any) -> int:
    """Insert one job as the broker would; `columns` replace its defaults. Return its queue_id."""
    job = {
        "execution_id": 1,
        "node_id": f"1:{node}",
        "node_name": node,
        "node_type": "python",
        "action": "{}",
        "event_id": 7,
        **columns,
    }
    names = ", ".join(job)
    places = ", ".join(f"${index}" for index in range(1, len(job) + 1))
    statement = f"insert into noetl.queue ({names}) values ({places}) returning queue_id"
    return int(await own.fetchval(statement, *job.values()))


async def listen(own: Session[Any], channel: str = "noetl_event") -> Callable[[], Awaitable[str]]:
    """LISTEN; return a function that waits for the next notification and returns its payload."""
    received: asyncio.Queue[str] = asyncio.Queue()
    await own.add_listener(channel, lambda _connection, _pid, _channel, payload: received.put_nowait(payload))

    async def next_payload() -> str:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await received.get()

    return next_payload


async def blocked(own: Session[Any], *, sessions: int = 1) -> None:
    """Return when so many sessions of this database wait for a lock; nothing notifies of that, so it is polled."""
    waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await own.fetchval(waits) < sessions:
            await own.execute("select pg_stat_clear_snapshot()")
            await asyncio.sleep(POLL_SECONDS)


def refused(sqlstate: str, match: str | None = None) -> AbstractAsyncContextManager[None]:
    """Expect an error with this SQLSTATE, or of this class, and a message that matches."""
    return _refused(sqlstate, match)


@asynccontextmanager
async def _refused(sqlstate: str, match: str | None) -> AsyncIterator[None]:
    with pytest.raises(asyncpg.PostgresError, match=match) as caught:
        yield
    assert str(caught.value.sqlstate)[: len(sqlstate)] == sqlstate
