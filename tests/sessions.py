"""Sessions beside each other on a test's database, jobs put into it by hand, and what a refusal looks like."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from noetl_broker.store.pool import connect
from tests.postgres import Database

Session = asyncpg.Connection


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


def refused(sqlstate: str, match: str = "") -> AbstractAsyncContextManager[None]:
    """Expect a refusal with this SQLSTATE, and a message that matches."""
    return _refused(sqlstate, match)


@asynccontextmanager
async def _refused(sqlstate: str, match: str) -> AsyncIterator[None]:
    with pytest.raises(asyncpg.PostgresError, match=match) as caught:
        yield
    assert caught.value.sqlstate == sqlstate
