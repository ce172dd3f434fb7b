"""How far an attempt is, and the task that reports it: what changed, at most every REPORT_SECONDS for each attempt.

An attempt that ends sooner costs nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from noetl_broker.errors import DatabaseFault, PermissionFault, SchemaFault
from noetl_broker.store.worker.jobs import JobDatabase, Lease, RefusedFault, report_progress
from noetl_broker.worker.errors import storable
from noetl_broker.worker.logger import Log
from noetl_broker.worker.redaction import Redactor

REPORT_SECONDS = 2.0
POLL_SECONDS = 0.25  # between two polls for reports that are due
MOST_TYPES = 5  # of errors, in one report
TYPE_CHARACTERS = 100

log = Log(__name__)


class JobProgress:
    """How far one attempt is. Its items are counted, or its function says it, from any thread."""

    def __init__(self, begin: Callable[[JobProgress], None] = lambda _: None) -> None:
        """`begin` is called when there is something to report for the first time."""
        self._begin = begin
        self._has_items = False
        self._counts: tuple[int, int, int] | None = None  # done, failed, total
        self._types: Counter[str] = Counter()
        self._reported: tuple[int, int, int] | None = None
        self._due_at = 0.0

    def begin_items(self, total: int) -> None:
        """The attempt runs this many items."""
        self._has_items = True
        self._set((0, 0, total))

    def end_item(self, error_type: str | None = None) -> None:
        """An item has completed, or failed with an error of this type. The others may still run."""
        if not self._has_items or self._counts is None:
            return
        done, failed, total = self._counts
        if error_type is not None:
            self._types[error_type] += 1
        self._set((done + (error_type is None), failed + (error_type is not None), total))

    def set(self, done: int, total: int, failed: int) -> None:
        """Set the progress that the function of a step reports. Ignored for an item: the items are counted already.

        Raises ValueError for numbers that cannot be.
        """
        if not (min(done, failed) >= 0 and done + failed <= total and total >= 1):
            message = f"done and failed must be 0 or more, and together at most total: {done}, {failed} and {total}"
            raise ValueError(message)
        if not self._has_items:
            self._set((done, failed, total))

    def _set(self, counts: tuple[int, int, int]) -> None:
        is_first, self._counts = self._counts is None, counts
        if is_first:
            self._due_at = time.monotonic() + REPORT_SECONDS
            if counts[2]:  # an iterator of no items ends at once
                self._begin(self)

    def take(self, now: float, redactor: Redactor) -> dict[str, Any] | None:
        """The report if one is due at this moment of the monotonic clock, as the database takes it."""
        counts = self._counts
        if counts is None or counts == self._reported or now < self._due_at:
            return None
        self._reported, self._due_at = counts, now + REPORT_SECONDS
        done, failed, total = counts
        common = self._types.most_common(MOST_TYPES)
        errors: Counter[str] = Counter()
        for name, count in common:
            errors[str(storable(redactor.clean(name, cut=True)))[:TYPE_CHARACTERS]] += count
        report: dict[str, Any] = {"done": done, "failed": failed, "total": total}
        if errors:
            report |= {"errors": dict(errors), "other_types": len(self._types) - len(common)}
        return report

    def repeat(self) -> None:
        """The last report was lost: the next one is due though nothing changes."""
        self._reported = None


class ProgressSender:
    """Reports how far the attempts of one worker are."""

    def __init__(self, database: JobDatabase, worker_id: str, redactor: Redactor) -> None:
        self._database = database
        self._worker_id = worker_id
        self._redactor = redactor
        self._loop = asyncio.get_running_loop()
        self._open: dict[JobProgress, Lease] = {}
        self._begun = asyncio.Event()
        self._is_refused = False  # this worker may not report, or the database is older

    def open(self, lease: Lease) -> JobProgress:
        """The progress of a new attempt."""

        def begin(progress: JobProgress) -> None:  # any thread
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._add, progress, lease)

        return JobProgress(begin)

    def _add(self, progress: JobProgress, lease: Lease) -> None:
        if not self._is_refused:
            self._open[progress] = lease
            self._begun.set()

    def close(self, progress: JobProgress) -> None:
        """Report nothing more of an attempt: it has ended."""
        self._open.pop(progress, None)

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            if not self._open:
                self._begun.clear()
                await self._begun.wait()
            await asyncio.sleep(POLL_SECONDS)
            now = time.monotonic()
            reports = {each: report for each in self._open if (report := each.take(now, self._redactor)) is not None}
            if reports:
                await self._send(reports)

    async def _send(self, reports: dict[JobProgress, dict[str, Any]]) -> None:
        leases = {progress: self._open[progress] for progress in reports}
        try:
            accepted = await report_progress(
                self._database, self._worker_id, [(leases[each], report) for each, report in reports.items()]
            )
        except (PermissionFault, SchemaFault) as fault:
            self._is_refused = True
            self._open.clear()
            log.warning("progress_refused", error=str(fault))
        except RefusedFault as fault:
            log.warning("progress_refused", queue_ids=[lease.queue_id for lease in leases.values()], error=str(fault))
        except DatabaseFault as fault:
            log.debug("progress_waits", error=str(fault))
            for progress in reports:
                progress.repeat()
        else:
            for progress, lease in leases.items():
                if not accepted.get(lease.queue_id):  # the lease is renewed, or found lost, elsewhere
                    self.close(progress)
