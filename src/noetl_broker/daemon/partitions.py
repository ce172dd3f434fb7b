"""Creates the partitions of coming periods, so that no execution lands in the default partition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from noetl_broker.daemon.background import attempt
from noetl_broker.store.admin.archive import add_partition
from noetl_broker.store.connect.connection import ANSWER_SECONDS, Connection, Pool, borrowed, close_quickly, connect
from noetl_broker.store.connect.dsn import Database

log = structlog.get_logger(__name__)

CHECK_SECONDS = 3600.0
# After a fault. While we wait for a lock that a long reader (a dump) holds, others wait behind us. There is no hurry:
# partitions are created a whole period ahead.
RETRY_SECONDS = 60.0


async def keep_partitions(pool: Pool, database: Database, period_days: int) -> None:
    """Every hour, create what is missing up to one period ahead. The first broker to come creates it for all."""
    while True:
        succeeded = await attempt(
            _add_partitions(pool, database, period_days), on_fault="partitions could not be made, will try again"
        )
        await asyncio.sleep(CHECK_SECONDS if succeeded else RETRY_SECONDS)


async def _add_partitions(pool: Pool, database: Database, period_days: int) -> None:
    async with _connection(pool, database) as connection:
        while (name := await add_partition(connection, period_days)) is not None:
            log.info("made a partition", partition=name)


@asynccontextmanager
async def _connection(pool: Pool, database: Database) -> AsyncIterator[Connection]:
    if not database.may_be_bucket:
        async with borrowed(pool, ANSWER_SECONDS) as connection:
            yield connection
    else:  # on Citus, tables are made at the coordinator
        own = await connect(database.for_tables(), name="noetl-broker partitions", takes="writes")
        try:
            yield own
        finally:
            await close_quickly(own)
