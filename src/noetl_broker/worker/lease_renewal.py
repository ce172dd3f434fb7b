"""Renews the leases of running jobs, and kills a job whose lease is lost or whose result nobody wants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from noetl_broker.errors import DatabaseFault, PermissionFault, SchemaFault
from noetl_broker.growing_pauses import JITTER, RETRY_SECONDS, Backoff
from noetl_broker.store.worker.jobs import JobDatabase, LeasedJob, heartbeat_job, heartbeat_jobs
from noetl_broker.tasks import wait_for
from noetl_broker.worker.errors import Failure
from noetl_broker.worker.job_log import JobLog
from noetl_broker.worker.job_progress import JobProgress
from noetl_broker.worker.logger import Log, job_fields
from noetl_broker.worker.options import WorkerOptions
from noetl_broker.worker.sql.job_transaction import JobTransaction

RELEASE_SECONDS = 5.0
POLL_SECONDS = 0.5  # between two polls for cancelled jobs, however many cancels come
REFUSED = "lease lost"

log = Log(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class RunningJob:
    """A running job: its log, its progress, its task, the end of its lease, and the reason if it was killed.

    `began` is a moment of the monotonic clock. A job that is `finished` has its outcome and is not killed any more. If
    it is `answered`, the database has the outcome. `transaction` is for what commits with its completion.
    `failure`: of that commit.
    """

    job: LeasedJob
    log: JobLog
    progress: JobProgress
    transaction: JobTransaction
    began: float = field(default_factory=time.monotonic)
    task: asyncio.Task[None] | None = None
    expiry: asyncio.TimerHandle | None = None
    killed_because: str | None = None
    finished: bool = False
    answered: bool = False
    failure: Failure | None = None

    def hold_until(self, moment: float) -> None:
        """Kill the job at this moment of the loop's clock, unless this is called again: its lease ends then."""
        self.stop_expiry()
        if not self.finished:
            self.expiry = asyncio.get_running_loop().call_at(moment, self.kill, "lease not renewed")

    def stop_expiry(self) -> None:
        """The end of the lease kills this job no longer."""
        if self.expiry is not None:
            self.expiry.cancel()

    def finish(self) -> None:
        """The job has its outcome: from now on only the database decides whether its lease counts."""
        self.finished = True
        self.stop_expiry()

    @property
    def is_committing(self) -> bool:
        """Whether its rows and its completion are being committed, in one transaction."""
        return self.finished and self.transaction.is_used

    def kill(self, because: str) -> None:
        """Cancel the job once, unless it has its outcome."""
        if self.killed_because is None and not self.finished and self.task is not None:
            self.killed_because = because
            self.task.cancel()


class LeaseRenewal:
    """Renews all leases of one worker in one statement: at each third of their length, and when a job is cancelled."""

    def __init__(self, database: JobDatabase, options: WorkerOptions, running: Collection[RunningJob]) -> None:
        """`running` is the worker's own set, which changes while this runs."""
        self._database = database
        self._options = options
        self._running = running

    def lease_end(self) -> float:
        """The end of a lease that is taken or renewed now, by the loop's clock; the database's end is later."""
        return asyncio.get_running_loop().time() + self._options.lease_seconds

    async def run(self) -> None:
        """Renew until cancelled. Jobs whose answers wait are renewed too, so that nobody repeats finished work."""
        third = self._options.lease_seconds / 3
        backoff = Backoff(RETRY_SECONDS[0], min(RETRY_SECONDS[1], third), JITTER)
        pause = third
        while True:
            await asyncio.sleep(min(POLL_SECONDS, pause))
            await wait_for(self._database.cancelled, pause - POLL_SECONDS)
            self._database.cancelled.clear()
            try:
                await self._renew_all(timeout=third)
            except DatabaseFault as fault:
                pause = backoff.next()
                log.warning(
                    "heartbeat_failed", jobs=len(self._running), error=str(fault), pause_seconds=round(pause, 2)
                )
            else:
                backoff.reset()
                pause = third

    async def _renew_all(self, *, timeout: float) -> None:  # noqa: ASYNC109 - of the statement
        until = self.lease_end()
        # If a job has two attempts, only the later one has a lease; the earlier answer is too late.
        # The commit of a job holds the lock of its lease. The renewal of the others does not wait for it.
        renewable = (running for running in self._running if not running.is_committing)
        held = {running.job.queue_id: running for running in sorted(renewable, key=lambda one: one.job.attempt)}
        if not held:
            return
        renewed = await heartbeat_jobs(
            self._database,
            self._options.worker_id,
            [running.job.lease for running in held.values()],
            lease_seconds=self._options.lease_seconds,
            timeout_seconds=timeout,
        )
        for queue_id, running in held.items():
            if running not in self._running:
                continue
            if renewed.get(queue_id):
                running.hold_until(until)
            else:
                running.kill(REFUSED)

    async def release(self, running: RunningJob) -> None:
        """Let the lease of a killed job run out within a second, so that the job is queued again.

        It counts as no failure of the step. If the database does not answer, the lease runs out by itself.
        """
        beat = heartbeat_job(self._database, self._options.worker_id, running.job.lease, lease_seconds=1)
        try:
            await asyncio.wait_for(beat, RELEASE_SECONDS)
        except (DatabaseFault, PermissionFault, SchemaFault, TimeoutError) as fault:
            log.warning("lease_kept", **job_fields(running.job), error=str(fault))
