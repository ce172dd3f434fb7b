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
from noetl_broker.worker.job_log import JobLog, LogBuffer
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
        self._awake: dict[LogBuffer, int] = {}  # the rounds that each waits
        self._last: dict[LogBuffer, asyncio.Future[None]] = {}  # attempts that have ended
        self._written = asyncio.Event()
        self._urgent = asyncio.Event()
        self._is_refused = False  # this worker may not log, or the database is older

    def open(self, lease: Lease, redactor: Redactor) -> JobLog:
        """The log of a new attempt."""
        return JobLog(lease, redactor, self._wake)

    def _wake(self, buffer: LogBuffer) -> None:
        """Any thread may call it."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._add, buffer)

    def _add(self, buffer: LogBuffer) -> None:
        self._awake.setdefault(buffer, 0)
        self._written.set()

    async def finish(self, buffer: LogBuffer) -> None:
        """Wait until the log of an ended attempt is in the database, for LAST_SECONDS at most."""
        if not buffer.is_awake:
            buffer.take(final=True)
            if buffer.settle():
                return
        self._add(buffer)
        done = self._last[buffer] = self._loop.create_future()
        self._urgent.set()
        try:
            await asyncio.wait([done], timeout=LAST_SECONDS)
        finally:
            self._last.pop(buffer, None)
            self._awake.pop(buffer, None)
        if not buffer.settle():
            log.warning("log_lost", queue_id=buffer.lease.queue_id, attempt=buffer.lease.attempt)

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

    def _chosen(self, *, is_due: bool) -> Iterator[LogBuffer]:
        """The logs of this round: all logs if a round is due, otherwise the logs of ended attempts."""
        for buffer, rounds in [*self._awake.items()]:
            if buffer in self._last:
                yield buffer
            elif is_due:
                self._awake[buffer] = max(rounds - 1, 0)
                if not rounds:
                    yield buffer

    async def _send(self, logs: Sequence[LogBuffer]) -> None:
        """Send what these logs have. A log without more text is forgotten until it is written again."""
        ended = self._last.keys() & set(logs)
        batch: list[LogBuffer] = []
        characters = 0
        for buffer in logs:
            if buffer in ended or not buffer.unsent:  # otherwise what was not sent would grow
                buffer.take(final=buffer in ended)
            self._awake[buffer] = FAST_ROUNDS if buffer.is_fast else 0
            batch.append(buffer)
            characters += sum(len(part.message) for part in buffer.unsent)
            if characters >= CALL_CHARACTERS:
                await self._send_batch(batch, ended)
                batch, characters = [], 0
        await self._send_batch(batch, ended)

    async def _send_batch(self, logs: Sequence[LogBuffer], ended: Collection[LogBuffer]) -> None:
        parts = [part for buffer in logs for part in buffer.unsent]
        if parts and not self._is_refused:
            await self._call(parts)
        for buffer in logs:
            buffer.unsent.clear()
            done = self._last.get(buffer)
            if done is not None and buffer not in ended:
                continue  # it ended during the call: the next round takes its last part
            if buffer.settle():
                self._awake.pop(buffer, None)
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
