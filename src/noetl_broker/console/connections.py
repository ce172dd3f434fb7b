"""The console's connections to the database: few, short, and connected again when the database is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from noetl_broker.errors import PermissionFault
from noetl_broker.store.connect.buckets import HasBuckets
from noetl_broker.store.connect.connection import TRANSACTION_SECONDS, Connection, borrowed
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.lazy_pool import LazyPool, LazyPools
from noetl_broker.store.connect.migrations import check_version
from noetl_broker.store.connect.session import translate_faults

CONNECTIONS = 6  # of ordinary requests
REQUEST_SECONDS = 10.0  # that a request may hold a connection, and wait for one
# A request must not hold up a broker: it waits for no lock, and a statement ends before its connection is cut.
SESSION = {"statement_timeout": "8s", "lock_timeout": "2s"}


class Connections:
    """Pools that connect at the first use: one, or one for each bucket. They raise the faults of `translate_faults`."""

    def __init__(
        self, database: Database, *, size: int = CONNECTIONS, transaction_seconds: float = TRANSACTION_SECONDS
    ) -> None:
        own = {"name": "noetl-broker console", "check": _check, "session": SESSION}
        self.pools = LazyPools(database, size=size, transaction_seconds=transaction_seconds, **own)

    @asynccontextmanager
    async def borrow(self, seconds: float = REQUEST_SECONDS) -> AsyncIterator[Any]:
        """A connection for at most `seconds`, with the wait for it; of an installation, the connections to buckets."""

        @asynccontextmanager
        async def borrow_of(pool: LazyPool) -> AsyncIterator[Connection]:
            with translate_faults():
                async with asyncio.timeout(seconds):
                    opened = await pool.get()
                async with borrowed(opened, seconds) as connection:
                    yield connection

        async with self.pools.place(borrow_of) as found:
            yield found

    async def close(self) -> None:
        """Close all connections within a time limit."""
        await self.pools.close()


async def _check(connection: Connection) -> None:
    """Raise SchemaFault if this program does not serve the schema; a login that may not read it goes on."""
    try:
        with translate_faults():
            await check_version(connection)
    except (HasBuckets, PermissionFault):
        return
