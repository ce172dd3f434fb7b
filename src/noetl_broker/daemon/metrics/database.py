"""The metrics of one database, queried at each scrape; its invariants are verified at intervals.

It uses connections of its own, outside the pool: it waits for no turn, and no turn waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import structlog

from noetl_broker.daemon.metrics import registry as metric
from noetl_broker.daemon.metrics.values import MetricsByDatabase, MetricValues
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.admin.verify import CHECKS, VerifyReport, VerifyScope, verify
from noetl_broker.store.connect.buckets import HasBuckets, named_buckets, refuse_installation
from noetl_broker.store.connect.connection import Connection, connect
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.sqlstates import log_fields, message_of
from noetl_broker.store.queries import sql

log = structlog.get_logger(__name__)

MAX_COUNTED: Final = 100_000
ANSWER_SECONDS: Final = 3.0  # for a scrape, with connecting
FRESH_SECONDS: Final = 1.0  # one answer of the database serves every scrape in this time
VERIFY_TIMEOUT_SECONDS: Final = 30.0
VERIFY_SHARE: Final = 0.1  # of the time, at most: a verification that takes long runs less often
OVERLAP_SECONDS: Final = 10.0  # with the verification before
EXAMPLES: Final = 3
# Columns of the statement `observe` that have the name of their metric.
OBSERVED: Final = (
    metric.OLDEST_UNREAD,
    metric.UNREAD_MAIL,
    metric.DEAD_LETTERS,
    metric.EXECUTIONS_RUNNING,
    metric.EXECUTIONS_PAUSED,
    metric.UNDO_LEFT,
    metric.EXECUTIONS_QUEUED,
    metric.OLDEST_WAITING_JOB,
    metric.JOBS_UNSERVED,
    metric.LEASES_OVERDUE,
    metric.NOTIFY_QUEUE_USAGE,
    metric.STALE_ANSWERS,
)


class DatabaseMetrics:
    """The metrics of one database; `trouble` says why the last answer is missing."""

    def __init__(self, database: Database) -> None:
        """Not connected yet."""
        self.trouble: str | None = None
        self.database = database
        self._connection: Any = None
        self._lock = asyncio.Lock()
        self._observed_at = float("-inf")
        self._observed = MetricValues()
        self._verified = MetricValues()
        self._failures = 0

    async def collect(self) -> MetricValues:
        """The metrics of now or of the last second; `database_up` is 0 when the database does not answer.

        Raises HasBuckets for an installation.
        """
        async with self._lock:
            if time.monotonic() - self._observed_at > FRESH_SECONDS:
                self._observed = await self._observe()
                self._observed_at = time.monotonic()
        values = MetricValues()
        values.merge(self._observed)
        values.merge(self._verified)
        values.set(metric.VERIFY_FAILURES, self._failures)
        return values

    async def attempt_verify(self, since_seconds: float) -> None:
        """Verify as `verify_once`; a fault is logged and counted. Raises HasBuckets for an installation."""
        try:
            async with asyncio.timeout(VERIFY_TIMEOUT_SECONDS):
                await self.verify_once(since_seconds)
        except HasBuckets:
            raise
        except Exception as error:  # noqa: BLE001 - a background task never ends the daemon
            self._failures += 1
            log.warning("the invariants could not be verified, will try again", **log_fields(error))

    async def verify_once(self, since_seconds: float) -> None:
        """Verify the invariants of what changed in the last seconds; log each violation."""
        began = time.monotonic()
        async with self._own_connection("noetl-broker verify") as connection:
            await refuse_installation(connection)
            report = await verify(connection, VerifyScope(which=Filter(since=since_seconds)), examples=EXAMPLES)
        self._record(report, time.monotonic() - began)

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _observe(self) -> MetricValues:
        values = MetricValues()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect(self.database, name="noetl-broker watch", takes="writes")
                    await refuse_installation(self._connection)
                row = await self._connection.fetchrow(sql("observe"), MAX_COUNTED)
        except HasBuckets:
            await self.close()
            raise
        except Exception as error:  # noqa: BLE001 - the answer to any fault is: the database is down
            self.trouble = message_of(error) or log_fields(error)["because"]
            await self.close()
            values.set(metric.DATABASE_UP, 0)
            return values
        self.trouble = None
        values.set(metric.DATABASE_UP, 1)
        for each in OBSERVED:
            values.set(each, row[each.name] or 0)
        for status in ("waiting", "delayed", "leased", "throttled"):
            values.set(metric.JOBS, row[f"{status}_jobs"], status)
        return values

    @contextlib.asynccontextmanager
    async def _own_connection(self, name: str) -> AsyncIterator[Connection]:
        connection = await connect(self.database, name=name, takes="writes")
        try:
            yield connection
        finally:
            connection.terminate()

    def _record(self, report: VerifyReport, seconds: float) -> None:
        broken = Counter({check.invariant: 0 for check in CHECKS})
        for verdict in report.verdicts:
            broken[verdict.check.invariant] += verdict.broken
            for fault in verdict.examples:
                log.error(
                    "an invariant is broken",
                    invariant=verdict.check.invariant,
                    must_hold=verdict.check.sentence,
                    execution_id=fault.execution_id,
                    detail=fault.detail,
                )
        values = MetricValues()
        for invariant, count in broken.items():
            values.set(metric.BROKEN_INVARIANTS, count, invariant)
        values.set(metric.VERIFIED_EXECUTIONS, report.executions)
        values.set(metric.VERIFY_SECONDS, seconds)
        values.set(metric.LAST_VERIFY, time.time())
        self._verified = values


class Observers:
    """The metrics of the given databases, by name. Buckets stand in the place of their installation once it answers."""

    def __init__(self, databases: Mapping[str, Database]) -> None:
        """Not connected yet."""
        self._of = {name: {name: DatabaseMetrics(database)} for name, database in databases.items()}  # by given name

    @property
    def each(self) -> dict[str, DatabaseMetrics]:
        """Each database or bucket by its own name."""
        return {name: each for observers in self._of.values() for name, each in observers.items()}

    async def collect(self) -> MetricsByDatabase:
        """Ask all at the same time, so that none waits for another."""
        collected = await asyncio.gather(*(self._collect(given) for given in self._of))
        return {name: values for found in collected for name, values in found.items()}

    async def keep_verifying(self, given: str, seconds: float) -> None:
        """Verify what changed since the last time, at these intervals, one bucket after the other; never raises."""
        while True:
            began = time.monotonic()
            try:
                for name, each in self._of[given].items():
                    with structlog.contextvars.bound_contextvars(database=name):
                        await each.attempt_verify(seconds + OVERLAP_SECONDS)
            except HasBuckets as found:
                self._replace(given, found.count)
                continue
            took = time.monotonic() - began
            await asyncio.sleep(max(seconds - took, took / VERIFY_SHARE - took))

    async def close(self) -> None:
        """Close the connections."""
        for each in self.each.values():
            await each.close()

    async def _collect(self, given: str) -> MetricsByDatabase:
        observers = self._of[given]
        try:
            values = await asyncio.gather(*(each.collect() for each in observers.values()))
        except HasBuckets as found:
            self._replace(given, found.count)
            return await self._collect(given)
        return dict(zip(observers, values, strict=True))

    def _replace(self, given: str, count: int) -> None:
        """Observe the buckets of an installation, if that is not done already."""
        installation = self._of[given].get(given)
        if installation is not None:
            buckets = named_buckets(given, installation.database, count)
            self._of[given] = {name: DatabaseMetrics(bucket) for name, bucket in buckets.items()}
