"""Looks at the database as an operator would: when somebody asks for figures, and at its invariants now and then.

On connections of its own, outside the pool: a look waits for no turn, and no turn for a look.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import structlog

from noetl_broker.daemon.figures import Figures
from noetl_broker.store.faults import sentence, told
from noetl_broker.store.pool import Connection, connect
from noetl_broker.store.queries import sql
from noetl_broker.store.verify import CHECKS, Report, Scope, verify

log = structlog.get_logger(__name__)

MOST_COUNTED = 100_000
LOOK_SECONDS = 3.0  # with the connecting; whoever asks has little patience
KEPT_SECONDS = 1.0  # so long one look serves everybody who asks
VERIFY_MOST_SECONDS = 30.0
VERIFY_SHARE = 0.1  # of the time, at most: where much changes, it is looked at less often
OVERLAP_SECONDS = 10.0  # with the verification before
EXAMPLES = 3
NUMBERS = (
    *("oldest_unread_seconds", "unread_mail", "dead_letters", "executions_running", "oldest_waiting_job_seconds"),
    *("leases_overdue", "notify_queue_usage", "stale_answers_total"),
)


class Observer:
    """The figures of one database; `trouble` says why the last look at it failed."""

    def __init__(self, dsn: str | None) -> None:
        """Nothing looked at yet."""
        self.trouble: str | None = None
        self._dsn = dsn
        self._connection: Any = None
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._seen = Figures()
        self._verified = Figures()
        self._failures = 0

    async def look(self) -> Figures:
        """The figures of now, or of the last second; where the database does not answer, that it does not."""
        async with self._looking:
            if time.monotonic() - self._looked_at > KEPT_SECONDS:
                self._seen = await self._ask()
                self._looked_at = time.monotonic()
        figures = Figures()
        figures.add(self._seen)
        figures.add(self._verified)
        figures.put("verify_failures_total", self._failures)
        return figures

    async def keep_verifying(self, seconds: float) -> None:
        """Hold what changed lately against the invariants, again and again; never raises."""
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(VERIFY_MOST_SECONDS):
                    await self.verify_once(seconds + OVERLAP_SECONDS)
            except Exception as error:  # noqa: BLE001 - a chore never ends the daemon
                self._failures += 1
                log.warning("the invariants could not be verified, will try again", **told(error))
            took = time.monotonic() - began
            await asyncio.sleep(max(seconds - took, took / VERIFY_SHARE - took))

    async def verify_once(self, since_seconds: float) -> None:
        """Hold what changed in the last seconds against the invariants; each fault is a line of the log as well."""
        began = time.monotonic()
        async with self._lent("noetl-broker verify") as connection:
            report = await verify(connection, Scope(since_seconds=since_seconds), examples=EXAMPLES)
        self._tell(report, time.monotonic() - began)

    async def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _ask(self) -> Figures:
        figures = Figures()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect(self._dsn, name="noetl-broker watch", takes="writes")
                row = await self._connection.fetchrow(sql("observe"), MOST_COUNTED)
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer is that there is none
            self.trouble = sentence(error) or told(error)["because"]
            await self.close()
            figures.put("database_up", 0)
            return figures
        self.trouble = None
        figures.put("database_up", 1)
        for name in NUMBERS:
            figures.put(name, row[name] or 0)
        for status in ("waiting", "delayed", "leased"):
            figures.put("jobs", row[f"{status}_jobs"], status)
        return figures

    @contextlib.asynccontextmanager
    async def _lent(self, name: str) -> AsyncIterator[Connection]:
        connection = await connect(self._dsn, name=name, takes="writes")
        try:
            yield connection
        finally:
            connection.terminate()

    def _tell(self, report: Report, took: float) -> None:
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
        figures = Figures()
        figures.put_all("broken_invariants", broken)
        figures.put("verified_executions", report.executions)
        figures.put("verify_seconds", took)
        figures.put("last_verify_timestamp_seconds", time.time())
        self._verified = figures
