"""Connections to a test's database, jobs inserted by hand, and expected errors of Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import asyncpg
import pytest

from noetl_broker.store.connection import close_quickly, connect
from tests.postgres import Database

Session = asyncpg.Connection
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.005  # looks without end take a core from what they wait for
UNHURRIED = "set idle_in_transaction_session_timeout = '5min'; set lock_timeout = '1min'"
# The idle sessions of `reused_session`. Each is held by a generator, which its event loop closes when the loop ends.
_Held = tuple["Session[Any]", AsyncGenerator["Session[Any]", None]]
_idle: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Database, list[_Held]]] = WeakKeyDictionary()


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
async def reused_session(database: Database) -> AsyncIterator[Session[Any]]:
    """Lend a connection for one statement; the next one gets it again, until the test's event loop ends.

    A new session costs 8 ms of processor time, and compiles each SQL function anew.
    """
    idle = _idle.setdefault(asyncio.get_running_loop(), {}).setdefault(database, [])
    held = await _open_one(idle) or await _hold(database)
    try:
        yield held[0]
    except asyncpg.PostgresError:
        idle.append(held)
        raise
    except BaseException:
        await held[1].aclose()
        raise
    idle.append(held)


async def close_idle_sessions(database: Database) -> None:
    """Close the sessions that `reused_session` keeps for this database."""
    for _, holder in _idle.get(asyncio.get_running_loop(), {}).pop(database, []):
        await holder.aclose()


async def _open_one(idle: list[_Held]) -> _Held | None:
    """Return an idle session that the server has not closed."""
    while idle:
        connection, holder = idle.pop()
        if not connection.is_closed():
            return connection, holder
        await holder.aclose()
    return None


async def _hold(database: Database) -> _Held:
    holder = _session_of_loop(database)
    return await anext(holder), holder


async def _session_of_loop(database: Database) -> AsyncGenerator[Session[Any], None]:
    connection = await connect(database, name="test")
    try:
        yield connection
    finally:
        await close_quickly(connection)


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
