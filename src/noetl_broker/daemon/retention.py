"""Drops periods that are older than the setting `keep`, and forgets old idempotency keys."""

from __future__ import annotations

import asyncio

import structlog

from noetl_broker.daemon.background import attempt
from noetl_broker.store.admin.retention import KeyPlace, begun, drop_old, sweep_keys
from noetl_broker.store.connect.connection import ANSWER_SECONDS, Pool, borrowed, close_quickly, connect
from noetl_broker.store.connect.dsn import Database
from noetl_broker.template.durations import parse_duration

log = structlog.get_logger(__name__)

CHECK_SECONDS = 3600.0
RETRY_SECONDS = 300.0


async def keep_dropping(pool: Pool, database: Database, keep: str | None, keep_keys: str) -> None:
    """Every hour, drop what is old enough. One broker does it at a time; without `keep` it only ends what has begun."""
    seconds = None if keep is None else parse_duration(keep)
    place = KeyPlace()
    while True:
        work = _drop(pool, database, seconds, parse_duration(keep_keys), place)
        succeeded = await attempt(work, on_fault="old executions could not be dropped, will try again")
        await asyncio.sleep(CHECK_SECONDS if succeeded else RETRY_SECONDS)


async def _drop(pool: Pool, database: Database, keep: float | None, keep_keys: float, place: KeyPlace) -> None:
    async with borrowed(pool, ANSWER_SECONDS) as connection:
        if keep is None and not await begun(connection):
            return
    # its own connection: the statements take long, and on Citus tables are dropped at the coordinator
    own = await connect(database.for_tables(), name="noetl-broker dropping", takes="writes")
    try:
        async for outcome in drop_old(own, keep):
            if outcome.held_by is None:
                log.info("dropped", **outcome._asdict())
            else:
                log.warning("a period is kept", period=outcome.period, reason=outcome.held_by)
        if keep is not None:
            await sweep_keys(own, keep_keys, place)
    finally:
        await close_quickly(own)
