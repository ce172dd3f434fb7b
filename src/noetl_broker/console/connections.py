"""The console's connections to the database: few, short, and connected again when the database is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from noetl_broker.errors import PermissionFault
from noetl_broker.store.connect.connection import (
    CLOSE_SECONDS,
    TRANSACTION_SECONDS,
    Connection,
    Pool,
    borrowed,
    create_pool,
)
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.migrations import check_version
from noetl_broker.store.connect.session import translate_faults

CONNECTIONS = 6  # of ordinary requests
REQUEST_SECONDS = 10.0  # that a request may hold a connection, and wait for one
# A request must not hold up a broker: it waits for no lock, and a statement ends before its connection is cut.
SESSION = {"statement_timeout": "8s", "lock_timeout": "2s"}


class Connections:
    """A pool that connects at the first use. It raises the faults of `translate_faults`."""

    def __init__(
        self, database: Database, *, size: int = CONNECTIONS, transaction_seconds: float = TRANSACTION_SECONDS
    ) -> None:
        self.database = database
        self._size = size
        self._transaction_seconds = transaction_seconds
        self._pool: Pool | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def borrow(self, seconds: float = REQUEST_SECONDS) -> AsyncIterator[Connection]:
        """A connection for at most `seconds`, with the wait for it."""
        with translate_faults():
            async with asyncio.timeout(seconds):
                pool = await self._open()
            async with borrowed(pool, seconds) as connection:
                yield connection

    async def close(self) -> None:
        """Close all connections within a time limit."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), CLOSE_SECONDS)
            except TimeoutError:
                pool.terminate()

    async def _open(self) -> Pool:
        async with self._lock:
            if self._pool is None:
                self._pool = await create_pool(
                    self.database,
                    name="noetl-broker console",
                    size=self._size,
                    check=_check,
                    session=SESSION,
                    transaction_seconds=self._transaction_seconds,
                )
            return self._pool


async def _check(connection: Connection) -> None:
    """Raise SchemaFault if this program does not serve the schema; a login that may not read it goes on."""
    try:
        with translate_faults():
            await check_version(connection)
    except PermissionFault:
        return
