"""Sessions beside each other on a test's database, jobs put into it by hand, and what a refusal looks like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from noetl_broker.store.pool import connect
from tests.postgres import Database

Session = asyncpg.Connection
PATIENCE_SECONDS = 10.0


@asynccontextmanager
async def session(database: Database) -> AsyncIterator[Session[Any]]:
    """A connection of its own, with the program's JSON codecs; each statement commits by itself."""
    connection = await connect(database.dsn, name="test")
    try:
        yield connection
    finally:
        await connection.close()


async def put_job(own: Session[Any], node: str = "a", **columns: Any) -> int:
    """Put one job into the queue as the broker would; `columns` replace what it has. Gives its queue_id."""
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
    places = ", ".join(f"${place}" for place in range(1, len(job) + 1))
    statement = f"insert into noetl.queue ({names}) values ({places}) returning queue_id"
    return int(await own.fetchval(statement, *job.values()))


async def listen(own: Session[Any], channel: str = "noetl_event") -> Callable[[], Awaitable[str]]:
    """LISTEN, and give what waits for the next notification and returns its payload."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    await own.add_listener(channel, lambda _connection, _pid, _channel, payload: heard.put_nowait(payload))

    async def next_one() -> str:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await heard.get()

    return next_one


async def blocked(own: Session[Any]) -> None:
    """Return as soon as a session of this database waits for another's lock; nothing signals that, so it is polled."""
    waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await own.fetchval(waits):
            await own.execute("select pg_stat_clear_snapshot()")


def refused(sqlstate: str, match: str | None = None) -> AbstractAsyncContextManager[None]:
    """Expect a refusal with this SQLSTATE (or of this class of them), and a message that matches."""
    return _refused(sqlstate, match)


@asynccontextmanager
async def _refused(sqlstate: str, match: str | None) -> AsyncIterator[None]:
    with pytest.raises(asyncpg.PostgresError, match=match) as caught:
        yield
    assert str(caught.value.sqlstate)[: len(sqlstate)] == sqlstate
