"""Pools that connect at their first use: one for a schema, or one for each bucket of an installation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg

from noetl_broker.store.connect.bucket_connections import BucketConnections, Place
from noetl_broker.store.connect.buckets import count_buckets
from noetl_broker.store.connect.connection import CLOSE_SECONDS, Connection, Pool, create_pool
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


MOST_OF_BUCKET = 2  # connections to each bucket
Borrows = Callable[[LazyPool], AbstractAsyncContextManager[Connection]]


class LazyPools:
    """The pool of a schema. If it turns out to be an installation's, also a small pool for each bucket."""

    def __init__(self, database: Database, **options: Any) -> None:
        self._options = options
        self.own = LazyPool(database, **options)
        self._of_buckets: dict[str, LazyPool] = {}
        self._count: int | None = None
        self._counted = False

    @asynccontextmanager
    async def place(self, borrow: Borrows) -> AsyncIterator[Place]:
        """A connection that `borrow` takes of the pool, or the connections to buckets, which it takes when it must."""
        if self._count is None:
            async with borrow(self.own) as connection:
                if not self._counted:
                    self._count, self._counted = await count_buckets(connection), True
                if self._count is None:
                    yield connection
                    return
        database = self.own.database
        yield BucketConnections(database, self._count, lambda one: borrow(self._pool_of(one)))

    def _pool_of(self, database: Database) -> LazyPool:
        own = self.own
        if database == own.database:
            return own
        size = min(self._options["size"], MOST_OF_BUCKET)
        return self._of_buckets.setdefault(database.schema, LazyPool(database, **{**self._options, "size": size}))

    async def close(self) -> None:
        """Close all connections within a time limit."""
        await asyncio.gather(*(pool.close() for pool in (self.own, *self._of_buckets.values())))
