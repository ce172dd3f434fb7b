"""The worker's loop: lease jobs while there is room, run them, report their outcomes, and drain at a stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from noetl_broker.errors import DatabaseFault, PermissionFault, SchemaFault
from noetl_broker.growing_pauses import JITTER, RETRY_SECONDS, Backoff
from noetl_broker.store.worker.jobs import (
    AttemptFailure,
    Completion,
    JobDatabase,
    Lease,
    LeasedJob,
    RefusedFault,
    announce_types,
    complete_jobs,
    complete_jobs_and_lease,
    heartbeat_job,
    lease_jobs,
)
from noetl_broker.tasks import first
from noetl_broker.worker.errors import Failure, ToolFault, failure_of
from noetl_broker.worker.executor import Success, execute, failure_without_secrets
from noetl_broker.worker.job_progress import ProgressSender
from noetl_broker.worker.lease_renewal import REFUSED, LeaseRenewal, RunningJob
from noetl_broker.worker.log_sender import LogSender
from noetl_broker.worker.logger import Log, job_fields
from noetl_broker.worker.options import WorkerOptions
from noetl_broker.worker.reporter import Receipt, Reporter, answer_of, send_span
from noetl_broker.worker.slots import Slots
from noetl_broker.worker.sql.job_transaction import JobTransaction
from noetl_broker.worker.stats import Stats
from noetl_broker.worker.tools.task import WorkerResources

FATAL = (PermissionFault, SchemaFault)  # waiting does not mend these: they end the worker with an exit code
LEASE_GRACE_SECONDS = 5.0  # for a lease statement that runs at the stop
LAST_ANSWER_SECONDS = (0.1, 1.0)  # for an answer that comes at the end of the drain: a tenth of its time, within these
SHORT_SECONDS = 0.1  # an answer waits a moment for the answers of jobs that have run for less
STOPPED = "stopped"
CANCELLED = {"message": "the worker stopped the job: it was cancelled or timed out", "type": "cancelled"}

log = Log(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The work of one loop. `types` are the step types to lease (None: all), `stats` what all loops count.

    `unannounced` are the types that registration may not know. `bucket` is its number, if there are buckets; then
    `on_answer` is called when it answers after a fault.
    """

    stats: Stats
    types: tuple[str, ...] | None
    unannounced: tuple[str, ...] = ()
    bucket: int | None = None
    on_answer: Callable[[], None] = lambda: None


class WorkerLoop:
    """Leases jobs, runs them, and reports their outcomes."""

    def __init__(
        self,
        options: WorkerOptions,
        database: JobDatabase,
        stop: asyncio.Event,
        shared: WorkerResources,
        slots: Slots,
        work: Assignment,
    ) -> None:
        """`shared` has the resources of all jobs. Once `stop` is set, nothing is leased."""
        self._work = work
        self.stats = work.stats
        self._slots = slots
        self.running: set[RunningJob] = set()
        self.renewal = LeaseRenewal(database, options, self.running)
        self._options = options
        self._database = database
        self._stop = stop
        self.reporter = Reporter(database, options.worker_id, self._complete, self._ends_soon, self._on_fault)
        self.logs = LogSender(database, options.worker_id)
        self.progress = ProgressSender(database, options.worker_id, shared.redactor)
        self._shared = shared
        self._types = work.types
        self._room = asyncio.Event()
        self._draining = False
        self._gives_up = asyncio.Event()  # set when the drain is over: commits end
        self._answers = False  # the last call to lease was answered
        self._call: asyncio.Task[tuple[dict[int, bool], list[LeasedJob]]] | None = None  # completes and leases
        self._found_too_few = False  # the last completions leased fewer jobs than there were slots
        self._wanted = 0  # slots for which a lease without completions is under way

    async def run(self) -> None:
        """Lease and start jobs until the stop."""
        stop, unannounced = self._stop, self._work.unannounced
        idle = Backoff(self._options.poll_min_seconds, self._options.poll_max_seconds, JITTER)
        broken = Backoff(*RETRY_SECONDS, JITTER)
        while not stop.is_set():
            self._room.clear()
            found_too_few, self._found_too_few = self._found_too_few, False
            if not found_too_few:  # otherwise a notification may be newer than what they found
                self._database.notified.clear()
            try:
                if unannounced:
                    await self._announce(unannounced)
                    unannounced = ()
                await self._database.listen()  # also a worker without room listens for cancels
                await self._probe()
                free = self._slots.ask(self)
                self._wanted = 0 if found_too_few else free
                leased = await self._lease(self._wanted)
            except FATAL:
                raise
            except (DatabaseFault, RefusedFault) as fault:
                self._answers = False
                self._slots.stop_waiting(self)
                pause = broken.next()
                log.warning("lease_failed", error=str(fault), pause_seconds=round(pause, 2))
                await first(stop.wait(), timeout=pause)
                continue
            finally:
                self._end_lease()
            broken.reset()
            if leased or found_too_few:
                idle.reset()
            if not free:
                await first(self._room.wait(), stop.wait(), self._database.listener_lost.wait())
            elif leased < free:
                await first(self._database.notified.wait(), stop.wait(), timeout=idle.next())

    async def _announce(self, types: tuple[str, ...]) -> None:
        """Tell registration of types of our own. A worker that may not still works: they can be added by hand."""
        try:
            await announce_types(self._database, types)
        except (PermissionFault, RefusedFault) as fault:
            log.warning("types_not_announced", types=types, error=str(fault))

    async def _probe(self) -> None:
        """Of several buckets, one that did not answer must answer before it gets slots: its lease might hang."""
        bucket = self._work.bucket
        if bucket is None or (self._answers and not self.reporter.in_trouble):
            return
        self._slots.stop_waiting(self)
        nobody = Lease(bucket, 0)  # the id of no job, of this bucket
        seconds = self._options.lease_seconds
        await heartbeat_job(self._database, self._options.worker_id, nobody, lease_seconds=seconds)
        self._answers = True
        self._work.on_answer()

    def _end_lease(self) -> None:
        """Give back the slots that a lease did not use."""
        self._wanted = 0
        if self._slots.is_shared:
            self._slots.pass_on()

    async def _lease(self, free: int) -> int:
        """Lease and start up to `free` jobs; returns their number."""
        if not free:
            return 0
        until, cancels = self.renewal.lease_end(), self._database.cancels
        jobs = await lease_jobs(
            self._database,
            worker_id=self._options.worker_id,
            max_jobs=free,
            lease_seconds=self._options.lease_seconds,
            node_types=self._types,
            pools=self._options.pools,
        )
        if self._options.null:
            await self._complete_unrun(jobs)
        else:
            self._start_all(jobs, until, cancels)
        return len(jobs)

    async def _complete_unrun(self, jobs: Sequence[LeasedJob]) -> None:
        """Complete jobs with {}, without running them."""
        self.stats.leased += len(jobs)
        if jobs:
            completions = [Completion(job.lease) for job in jobs]
            accepted = await complete_jobs(self._database, self._options.worker_id, completions)
            self.stats.done += sum(accepted.values())

    async def _complete(self, completions: Sequence[Completion]) -> dict[int, bool]:
        """Complete jobs. If all slots are taken, the same call leases a job for each slot that it sets free.

        If some slots are free, the queue was empty a moment ago. The answers then do not wait for another scan of it. A
        slot for which a lease is under way counts as taken.
        """
        accepted = await self._complete_and_lease(completions)
        answered = {completion.lease for completion in completions}
        for running in self.running:
            running.answered = running.answered or running.job.lease in answered
        if self._slots.is_shared:
            self._slots.pass_on()
        return accepted

    async def _complete_and_lease(self, completions: Sequence[Completion]) -> dict[int, bool]:
        if self._slots.is_shared and (self.reporter.in_trouble or not self._slots.may_keep(self)):
            self._database.notified.set()  # more jobs may wait: this bucket asks for slots again
            return await complete_jobs(self._database, self._options.worker_id, completions)
        free = self._slots.free + len(completions)
        if self._stop.is_set() or self._draining or not 0 < free <= len(completions):
            return await complete_jobs(self._database, self._options.worker_id, completions)
        until, cancels = self.renewal.lease_end(), self._database.cancels
        call = complete_jobs_and_lease(
            self._database,
            completions,
            worker_id=self._options.worker_id,
            max_jobs=free,
            lease_seconds=self._options.lease_seconds,
            node_types=self._types,
            pools=self._options.pools,
        )
        self._call = asyncio.create_task(call)
        try:
            accepted, jobs = await self._call
        except RefusedFault:  # perhaps a job that cannot be leased, which is no fault of the answers
            return await complete_jobs(self._database, self._options.worker_id, completions)
        self._found_too_few = len(jobs) < free
        self._start_all(jobs, until, cancels)
        return accepted

    @property
    def taken(self) -> int:
        """Slots of its jobs, and those for which a lease is under way. A job whose answer the database has needs none.

        While a bucket does not answer, its finished jobs leave their slots to other buckets.
        """
        leaves = self._slots.is_shared and self.reporter.in_trouble
        jobs = sum(not (running.answered or (leaves and running.finished)) for running in self.running)
        return jobs + self._wanted

    @property
    def is_leasing(self) -> bool:
        """Whether a lease without completions is under way."""
        return self._wanted > 0

    @property
    def room(self) -> int:
        """How many more jobs it may lease, whatever the other loops do: so few answers wait."""
        return self._slots.number - self._wanted - sum(not running.answered for running in self.running)

    def wake(self) -> None:
        """Ask for slots again."""
        self._room.set()

    def _on_fault(self) -> None:
        """The answers were not taken: of several buckets, this one wants no slots, and the others get those it has."""
        if self._slots.is_shared:
            self._slots.stop_waiting(self)
            self.wake()

    def _ends_soon(self) -> bool:
        """Whether a job runs that may be a short one."""
        latest = time.monotonic() - SHORT_SECONDS
        return any(running.began > latest and not running.finished for running in self.running)

    def _start_all(self, jobs: Sequence[LeasedJob], until: float, cancels: int) -> None:
        """Start jobs that are leased until then. `cancels`: how many were heard before the lease."""
        for job in jobs:
            self._start(job, until)
        if jobs and cancels != self._database.cancels:
            self._database.cancel_heard()  # the first poll came before these jobs were known

    def _start(self, job: LeasedJob, until: float) -> None:
        job_log, progress = self.logs.open(job.lease, self._shared.redactor), self.progress.open(job.lease)
        transaction = JobTransaction(
            self._database,
            self._options.worker_id,
            job,
            self._shared.sql_connections,
            idle_seconds=self._options.lease_seconds,
        )
        running = RunningJob(job=job, log=job_log, progress=progress, transaction=transaction)
        self.stats.leased += 1
        self.running.add(running)
        running.task = asyncio.create_task(self._run(running), name=f"job {job.queue_id}")
        running.hold_until(until)

    async def _run(self, running: RunningJob) -> None:
        """Run one job and report its outcome; its lease is renewed until the database has the answer."""
        job = running.job
        began_at = datetime.now(UTC)
        fields = job_fields(job)
        # for all lines of this task, also lines of libraries
        structlog.contextvars.bind_contextvars(execution_id=job.execution_id, step=job.node_name, attempt=job.attempt)
        log.debug("job_started", **fields)
        try:
            outcome = await self._outcome(running)
            await self.logs.finish(running.log)  # the lease ends with the answer
            receipt = None if outcome is None else await self._answer(running, outcome)
            if outcome is None or receipt is None:
                await self._end_killed(running, fields)
                return
            outcome = running.failure or outcome
            self._record(receipt, outcome, fields | {"seconds": round(time.monotonic() - running.began, 3)})
            if self._options.emit is not None and receipt is not Receipt.NOT_SENT:
                await send_span(self._database, self._options.emit, job, outcome, began_at)
        finally:
            running.transaction.cut()
            self.progress.close(running.progress)
            running.stop_expiry()
            self.running.discard(running)
            self._slots.pass_on()

    async def _answer(self, running: RunningJob, outcome: Success | Failure) -> Receipt | None:
        """Report an outcome, or commit it with the rows of the job. None: the job was cancelled, and wrote nothing."""
        transaction = running.transaction
        if transaction.is_used and isinstance(outcome, Success):
            committing = asyncio.create_task(transaction.commit(outcome.result))
            await first(asyncio.wait({committing}), self._gives_up.wait())
            if not committing.done():
                committing.cancel()
                await asyncio.wait({committing})
                return Receipt.NOT_SENT
            try:
                status = committing.result()
            except ToolFault as fault:
                running.failure = outcome = failure_without_secrets(fault, self._shared.redactor)
            else:
                if status == "stopped":
                    running.killed_because = REFUSED
                    return None
                return Receipt.COUNTED if status == "completed" else Receipt.TOO_LATE
        elif transaction.is_used:
            await transaction.roll_back()
        return await self.reporter.report(answer_of(running.job.lease, outcome))

    async def _end_killed(self, running: RunningJob, fields: dict[str, Any]) -> None:
        """Log a killed job. Release its lease if the worker stops; end it if the job was cancelled."""
        if running.killed_because == REFUSED:
            # A cancelled job counts as leased until its work has ended. For a lost lease this changes nothing.
            receipt = await self.reporter.report(AttemptFailure(running.job.lease, CANCELLED, retryable=False))
            if receipt is Receipt.COUNTED:
                self.stats.cancelled += 1
                log.info("job_cancelled", **fields)
                return
        log.warning("job_killed", **fields, because=running.killed_because)
        if running.killed_because == STOPPED:
            self.running.discard(running)  # its lease is not renewed any more
            await self.renewal.release(running)

    def _record(self, receipt: Receipt, outcome: Success | Failure, fields: dict[str, Any]) -> None:
        """Count an answer and log it."""
        counted = receipt is Receipt.COUNTED
        if isinstance(outcome, Success):
            self.stats.done += counted
        else:
            self.stats.failed += counted
        fields |= log_fields(outcome)
        if receipt is Receipt.TOO_LATE:
            log.warning("answer_too_late", **fields)
        elif receipt is Receipt.NOT_SENT:
            log.warning("answer_not_sent", **fields, error=self.reporter.trouble)
        else:
            log.info("job_ended", **fields, counted=counted)

    async def _outcome(self, running: RunningJob) -> Success | Failure | None:
        """Execute a job. None when it was killed: the next holder of its lease answers."""
        try:
            limit = self._options.time_limit_seconds
            outcome = await execute(
                running.job,
                self._shared,
                running.log,
                running.progress,
                time_limit_seconds=limit,
                transaction=running.transaction,
            )
            running.finish()
            if self._slots.is_shared and self.reporter.in_trouble:
                self._slots.pass_on()  # this job leaves its slot, though its answer waits
            await asyncio.sleep(0)  # a cancellation that the step's code requested is raised here, not in the report
        except asyncio.CancelledError:
            if running.killed_because is not None:
                return None
            running.finish()
            return failure_of(ToolFault("the task cancelled itself", kind="CancelledError"))
        return outcome

    async def drain(self) -> None:
        """Let running jobs finish and report for `drain_seconds`; then kill the others and release their leases.

        An answer that has just come has a moment more.
        """
        self._draining = True
        self._slots.stop_waiting(self)
        unfinished = self._tasks()
        if not unfinished:
            return
        log.info("worker_draining", jobs=len(unfinished), limit_seconds=self._options.drain_seconds)
        clock = asyncio.get_running_loop().time
        end = clock() + self._options.drain_seconds
        while unfinished and (left := end - clock()) > 0:
            await asyncio.wait(unfinished, timeout=left)
            unfinished = self._tasks()  # also of jobs that were leased by a call that ran at the stop
        self._kill_all()
        if self._call is not None:  # otherwise the jobs that it leases would wait until their leases expire
            await asyncio.wait([self._call], timeout=LEASE_GRACE_SECONDS)
        moment = min(max(self._options.drain_seconds / 10, LAST_ANSWER_SECONDS[0]), LAST_ANSWER_SECONDS[1])
        while unfinished := unfinished | self._tasks():
            self._kill_all()
            self.logs.give_up()
            self.reporter.give_up(after_seconds=moment)
            _, unfinished = await asyncio.wait(unfinished, timeout=moment)
            self._gives_up.set()

    def _kill_all(self) -> None:
        for running in list(self.running):
            running.kill(STOPPED)

    def _tasks(self) -> set[asyncio.Task[None]]:
        return {running.task for running in self.running if running.task is not None}


def log_fields(outcome: Success | Failure) -> dict[str, Any]:
    """The fields that the log shows of an outcome: no payload, and no message of a step's code."""
    if isinstance(outcome, Success):
        return {"outcome": "done", "result_characters": len(outcome.result)}
    return {"outcome": "failed", "error_type": outcome.error.get("type"), "retryable": outcome.retryable}
