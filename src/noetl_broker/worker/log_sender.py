"""Sends the logs of running attempts to the database: all together, twice a second, and each before its answer.

An attempt that prints nothing costs nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator, Sequence

from noetl_broker.errors import DatabaseFault, PermissionFault, SchemaFault
from noetl_broker.growing_pauses import JITTER, RETRY_SECONDS, Backoff
from noetl_broker.store.worker.jobs import JobDatabase, Lease, LogPart, RefusedFault, log_jobs
from noetl_broker.tasks import wait_for
from noetl_broker.worker.job_log import JobLog
from noetl_broker.worker.logger import Log
from noetl_broker.worker.redaction import Redactor

SEND_SECONDS = 0.5
FAST_ROUNDS = 3  # that a fast log waits: its secrets take time, and most of it is dropped
LAST_SECONDS = 10.0  # for the last part of a log: then the answer goes on without it
CALL_CHARACTERS = 1 << 20  # of one call, about

log = Log(__name__)


class LogSender:
    """Sends the logs of the jobs of one worker."""

    def __init__(self, database: JobDatabase, worker_id: str) -> None:
        self._database = database
        self._worker_id = worker_id
        self._loop = asyncio.get_running_loop()
        self._awake: dict[JobLog, int] = {}  # the rounds that each waits
        self._last: dict[JobLog, asyncio.Future[None]] = {}  # attempts that have ended
        self._written = asyncio.Event()
        self._urgent = asyncio.Event()
        self._is_refused = False  # this worker may not log, or the database is older

    def open(self, lease: Lease, redactor: Redactor) -> JobLog:
        """The log of a new attempt."""
        return JobLog(lease, redactor, self._wake)

    def _wake(self, job_log: JobLog) -> None:
        """Any thread may call it."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._add, job_log)

    def _add(self, job_log: JobLog) -> None:
        self._awake.setdefault(job_log, 0)
        self._written.set()

    async def finish(self, job_log: JobLog) -> None:
        """Wait until the log of an ended attempt is in the database, for LAST_SECONDS at most."""
        if not job_log.is_awake:
            job_log.take(final=True)
            if job_log.settle():
                return
        self._add(job_log)
        done = self._last[job_log] = self._loop.create_future()
        self._urgent.set()
        try:
            await asyncio.wait([done], timeout=LAST_SECONDS)
        finally:
            self._last.pop(job_log, None)
            self._awake.pop(job_log, None)
        if not job_log.settle():
            log.warning("log_lost", queue_id=job_log.lease.queue_id, attempt=job_log.lease.attempt)

    def give_up(self) -> None:
        """Do not wait for the logs of ended attempts: the worker stops."""
        for done in self._last.values():
            if not done.done():
                done.set_result(None)

    async def run(self) -> None:
        """Send until cancelled."""
        backoff, clock = Backoff(*RETRY_SECONDS, JITTER), self._loop.time
        due = clock()
        try:
            while True:
                if not self._awake:
                    self._written.clear()
                    await self._written.wait()
                    due = clock() + SEND_SECONDS
                await wait_for(self._urgent, max(due - clock(), 0))
                self._urgent.clear()
                if is_due := clock() >= due:
                    due = clock() + SEND_SECONDS
                try:
                    await self._send([*self._chosen(is_due=is_due)])
                except DatabaseFault as fault:
                    log.warning("logs_wait", logs=len(self._awake), error=str(fault))
                    await asyncio.sleep(backoff.next())
                    if self._last:
                        self._urgent.set()
                else:
                    backoff.reset()
        finally:
            self.give_up()

    def _chosen(self, *, is_due: bool) -> Iterator[JobLog]:
        """The logs of this round: all logs if a round is due, otherwise the logs of ended attempts."""
        for job_log, rounds in [*self._awake.items()]:
            if job_log in self._last:
                yield job_log
            elif is_due:
                self._awake[job_log] = max(rounds - 1, 0)
                if not rounds:
                    yield job_log

    async def _send(self, logs: Sequence[JobLog]) -> None:
        """Send what these logs have. A log without more text is forgotten until it is written again."""
        ended = self._last.keys() & set(logs)
        batch: list[JobLog] = []
        characters = 0
        for job_log in logs:
            if job_log in ended or not job_log.unsent:  # otherwise what was not sent would grow
                job_log.take(final=job_log in ended)
            self._awake[job_log] = FAST_ROUNDS if job_log.is_fast else 0
            batch.append(job_log)
            characters += sum(len(part.message) for part in job_log.unsent)
            if characters >= CALL_CHARACTERS:
                await self._send_batch(batch, ended)
                batch, characters = [], 0
        await self._send_batch(batch, ended)

    async def _send_batch(self, logs: Sequence[JobLog], ended: Collection[JobLog]) -> None:
        parts = [part for job_log in logs for part in job_log.unsent]
        if parts and not self._is_refused:
            await self._call(parts)
        for job_log in logs:
            job_log.unsent.clear()
            done = self._last.get(job_log)
            if done is not None and job_log not in ended:
                continue  # it ended during the call: the next round takes its last part
            if job_log.settle():
                self._awake.pop(job_log, None)
            if done is not None and not done.done():
                done.set_result(None)

    async def _call(self, parts: Sequence[LogPart]) -> None:
        """Send parts. A log that the database refuses is lost: the work is more than its log."""
        try:
            await log_jobs(self._database, self._worker_id, parts)
        except (PermissionFault, SchemaFault) as fault:
            self._is_refused = True
            log.warning("logs_refused", error=str(fault))
        except RefusedFault as fault:
            log.warning("log_refused", queue_ids=sorted({part.lease.queue_id for part in parts}), error=str(fault))
