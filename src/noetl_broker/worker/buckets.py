"""The buckets that a worker serves: which ones, and a task for each. A bucket that fails does not stop the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import structlog

from noetl_broker.errors import BrokerError, DatabaseFault, OperatorFault
from noetl_broker.growing_pauses import JITTER, RETRY_SECONDS, Backoff
from noetl_broker.store.connect.buckets import MOST, buckets_of, count_buckets
from noetl_broker.store.connect.connection import close_quickly, connect
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.worker.jobs import database_faults
from noetl_broker.tasks import run_all, wait_for
from noetl_broker.worker.logger import Log

PAUSE_SECONDS = (1.0, 60.0)  # before a bucket that failed is served again
HEALTHY_SECONDS = 120.0  # a bucket that was served longer begins with the shortest pause again

Serve = Callable[[int, Database, Callable[[], None]], Awaitable[None]]

log = Log(__name__)


def parse_buckets(given: str | Sequence[int]) -> tuple[int, ...]:
    """The numbers in a list of numbers and ranges, such as `0-7,12`, or in a sequence. Raises OperatorFault."""
    numbers: set[int] = set()
    for part in given.split(",") if isinstance(given, str) else map(str, given):
        first, dash, last = part.strip().partition("-")
        ends = (first, last) if dash else (first, first)
        least, most = (
            int(end) if end.isascii() and end.isdigit() and len(end) <= len(str(MOST)) else -1 for end in ends
        )
        if not 0 <= least <= most < MOST:
            raise OperatorFault(
                f"buckets has {part!r:.80}, which is no bucket and no range: write numbers from 0 to {MOST - 1}, for"
                " example 0-7,12"
            )
        numbers.update(range(least, most + 1))
    if not numbers:
        raise OperatorFault("buckets is empty: name the buckets to serve, or leave it out for all")
    return tuple(sorted(numbers))


async def find_buckets(
    database: Database, wanted: Sequence[int] | None, stop: asyncio.Event
) -> dict[int, Database] | None:
    """The buckets to serve by number, of an installation; None: the schema has no buckets.

    Waits while the database is away; empty if the stop comes first. Raises OperatorFault if a wanted bucket is not
    there.
    """
    backoff = Backoff(*RETRY_SECONDS, JITTER)
    while not stop.is_set():
        try:
            count = await _count(database)
        except DatabaseFault as fault:
            pause = backoff.next()
            log.warning("lease_failed", error=str(fault), pause_seconds=round(pause, 2))
            await wait_for(stop, pause)
            continue
        if count is None and wanted is None:
            return None
        if count is None:
            raise OperatorFault(
                f"the schema {database.schema} has no buckets: leave buckets out, or name an installation with buckets"
                " as the schema"
            )
        if unknown := [number for number in wanted or () if number >= count]:
            named = ", ".join(map(str, unknown))
            raise OperatorFault(
                f"the installation {database.schema} has no bucket {named}: it has 0 to {count - 1}; name some of these"
                " in buckets, or leave it out for all"
            )
        return {n: one for n, one in enumerate(buckets_of(database, count)) if wanted is None or n in wanted}
    return {}


async def _count(database: Database) -> int | None:
    connection = await connect(database, name="noetl-broker worker")
    try:
        async with database_faults():
            return await count_buckets(connection)
    finally:
        await close_quickly(connection)


async def serve_each(buckets: Mapping[int, Database], serve: Serve, stop: asyncio.Event) -> None:
    """Serve each bucket until the stop; after a fault, serve it again. Raises the last fault when all have failed.

    `serve` is called with number, database, and what it calls when the bucket answers.
    """
    failed: set[int] = set()

    async def keep_serving(number: int, database: Database) -> None:
        structlog.contextvars.bind_contextvars(bucket=number)
        backoff = Backoff(*PAUSE_SECONDS)
        while not stop.is_set():
            began = time.monotonic()
            try:
                await serve(number, database, partial(failed.discard, number))
            except Exception as fault:
                if stop.is_set() and len(buckets) > 1:
                    return
                failed.add(number)
                if len(failed) == len(buckets):
                    raise
                if time.monotonic() - began > HEALTHY_SECONDS:
                    backoff.reset()
                pause = backoff.next()
                _log_fault(database, fault, pause)
                await wait_for(stop, pause)

    await run_all(*(keep_serving(number, database) for number, database in buckets.items()))


def _log_fault(database: Database, fault: Exception, pause: float) -> None:
    reason = str(fault) if isinstance(fault, BrokerError) else repr(fault)
    log.error("bucket_not_served", schema=database.schema, error=reason, pause_seconds=pause)
