"""A pool that connects at its first use."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from noetl_broker.store.connect.connection import CLOSE_SECONDS, Pool, create_pool
from noetl_broker.store.connect.dsn import Database


class LazyPool:
    """Connections to a database; the options are those of `create_pool`."""

    def __init__(self, database: Database, **options: Any) -> None:
        self.database, self._options = database, options
        self._pool: Pool | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> Pool:
        """The pool. Raises as `create_pool`."""
        async with self._lock:
            if self._pool is None:
                self._pool = await create_pool(self.database, **self._options)
            return self._pool

    async def close(self) -> None:
        """Close all connections within a time limit."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), CLOSE_SECONDS)
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pool.terminate()
