"""The worker's loop: lease jobs while there is room, run them, keep their leases, answer, and stop in good order."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import httpx

from noetl_broker.broker.spans import Emit
from noetl_broker.errors import DatabaseFault, OperatorFault, PermissionFault, SchemaFault
from noetl_broker.store.jobs import (
    JobDatabase,
    LeasedJob,
    RefusedFault,
    heartbeat_job,
    heartbeat_jobs,
    lease_jobs,
    traceparent_of,
)
from noetl_broker.worker.environment import visible_environment
from noetl_broker.worker.execute import TOOLS, Success, execute, types_with
from noetl_broker.worker.faults import Failure, ToolFault, failure_of
from noetl_broker.worker.logger import Log
from noetl_broker.worker.null import run_null
from noetl_broker.worker.options import WorkerOptions
from noetl_broker.worker.report import Reporter, Said, answer_of
from noetl_broker.worker.spans import attempt_span
from noetl_broker.worker.tally import Tally
from noetl_broker.worker.tools.interpreters import Interpreters
from noetl_broker.worker.tools.task import Lent, Tool
from noetl_broker.worker.waiting import RETRY_SECONDS, Backoff, beside, first, in_time

# Waiting does not mend these; they end the worker with an exit code of their own.
FATAL = (PermissionFault, SchemaFault)
LAST_WORDS_SECONDS = 5.0
LAST_ANSWER_SECONDS = (0.1, 1.0)  # for one that comes as the time to stop is over: a tenth of that time, within these
STOPPED = "stopped"

log = Log(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class Running:
    """A job under way: its task, the end of its lease, and why it was cancelled.

    One that is `finished` has its outcome, and nobody cancels it any more.
    """

    job: LeasedJob
    task: asyncio.Task[None] | None = None
    expiry: asyncio.TimerHandle | None = None
    ended_because: str | None = None
    finished: bool = False

    def hold(self, until: float) -> None:
        """Kill the job at that moment of the loop's clock, unless this is called again: somebody else may have it."""
        self.release()
        if not self.finished:
            self.expiry = asyncio.get_running_loop().call_at(until, self.end, "lease not renewed")

    def release(self) -> None:
        """Have no lease any more that could end."""
        if self.expiry is not None:
            self.expiry.cancel()

    def finish(self) -> None:
        """Have an outcome: from here on the end of the lease is the database's business alone."""
        self.finished = True
        self.release()

    def end(self, because: str) -> None:
        """Kill the job, once, unless it has its outcome already."""
        if self.ended_because is None and not self.finished and self.task is not None:
            self.ended_because = because
            self.task.cancel()


@dataclass(slots=True, kw_only=True)
class Pool:
    """The running jobs of one worker, and what they share."""

    options: WorkerOptions
    database: JobDatabase
    reporter: Reporter
    lent: Lent
    types: tuple[str, ...]
    tally: Tally = field(default_factory=Tally)
    running: set[Running] = field(default_factory=set)
    room: asyncio.Event = field(default_factory=asyncio.Event)

    async def lease_until(self, stop: asyncio.Event) -> None:
        """Lease and start jobs until the stop."""
        idle = Backoff(least=self.options.poll_min_seconds, most=self.options.poll_max_seconds)
        broken = Backoff(least=RETRY_SECONDS[0], most=RETRY_SECONDS[1])
        while not stop.is_set():
            self.room.clear()
            free = self.options.concurrency - len(self.running)
            if free <= 0:
                await first(self.room.wait(), stop.wait())
                continue
            self.database.rung.clear()
            try:
                leased = await self._lease(free)
            except FATAL:
                raise
            except (DatabaseFault, RefusedFault) as fault:
                pause = broken.next()
                log.warning("lease_failed", error=str(fault), pause_seconds=round(pause, 2))
                await first(stop.wait(), timeout=pause)
                continue
            broken.reset()
            if leased:
                idle.reset()
            if leased < free:
                await first(self.database.rung.wait(), stop.wait(), timeout=idle.next())

    async def _lease(self, free: int) -> int:
        """Lease and start up to `free` jobs; gives their number."""
        await self.database.listen()
        until = self._lease_until()
        jobs = await lease_jobs(
            self.database,
            worker_id=self.options.worker_id,
            max_jobs=free,
            lease_seconds=self.options.lease_seconds,
            node_types=self.types,
        )
        for job in jobs:
            self._start(job, until)
        return len(jobs)

    def _lease_until(self) -> float:
        """Give the end of a lease that is asked for now, by the loop's clock; by the database's it is no earlier."""
        return asyncio.get_running_loop().time() + self.options.lease_seconds

    def _start(self, job: LeasedJob, until: float) -> None:
        running = Running(job=job)
        self.tally.leased += 1
        self.running.add(running)
        running.task = asyncio.create_task(self._run(running), name=f"job {job.queue_id}")
        running.hold(until)

    async def _run(self, running: Running) -> None:
        """Run one job to its answer; its lease is kept until the database has that."""
        job = running.job
        begun, began_at = time.monotonic(), datetime.now(UTC)
        fields = {"queue_id": job.queue_id, "execution_id": job.execution_id, "step": job.node_name}
        fields |= {"type": job.node_type, "attempt": job.attempt}
        log.debug("job_started", **fields)
        try:
            outcome = await self._outcome(running)
            if outcome is None:
                log.warning("job_killed", **fields, because=running.ended_because)
                if running.ended_because == STOPPED:
                    await self._let_go(running)
                return
            said = await self.reporter.report(answer_of(job.lease, outcome))
            self._tell_answer(said, outcome, fields | {"seconds": round(time.monotonic() - begun, 3)})
            if self.options.emit is not None and said is not Said.NOT_SENT:
                await self._tell_span(self.options.emit, job, outcome, began_at)
        finally:
            running.release()
            self.running.discard(running)
            self.room.set()

    def _tell_answer(self, said: Said, outcome: Success | Failure, fields: dict[str, Any]) -> None:
        """Count an answer, and log what became of it."""
        self.tally.add(done=isinstance(outcome, Success), counted=said is Said.COUNTED)
        fields |= ending(outcome)
        if said is Said.TOO_LATE:
            log.warning("answer_too_late", **fields)
        elif said is Said.NOT_SENT:
            log.warning("answer_not_sent", **fields, error=self.reporter.trouble)
        else:
            log.info("job_ended", **fields, counted=said is Said.COUNTED)

    async def _tell_span(self, emit: Emit, job: LeasedJob, outcome: Success | Failure, began_at: datetime) -> None:
        """The answer is given; a trace is worth no second try."""
        ended_at = datetime.now(UTC)
        try:
            traceparent = await traceparent_of(self.database, job)
        except (DatabaseFault, RefusedFault) as fault:
            log.warning("span_lost", queue_id=job.queue_id, error=str(fault))
        else:
            emit([attempt_span(job, traceparent, outcome, began_at, ended_at)])

    async def _outcome(self, running: Running) -> Success | Failure | None:
        """Execute a job; None when it was killed: the answer is for whoever has its lease now, or will have it."""
        try:
            outcome = await execute(running.job, self.lent, time_limit_seconds=self.options.time_limit_seconds)
            running.finish()
            await asyncio.sleep(0)  # a cancellation that the step has asked for comes now, and not to its answer
        except asyncio.CancelledError:
            if running.ended_because is not None:
                return None
            running.finish()
            return failure_of(ToolFault("the task cancelled itself", kind="CancelledError"))
        return outcome

    async def _let_go(self, running: Running) -> None:
        """Let the lease of a job that the stop killed run out soon, so that it is queued again.

        That is no failure of the step's; where the database does not answer, the lease runs out by itself.
        """
        self.running.discard(running)  # its lease is not to be renewed any more
        beat = heartbeat_job(self.database, self.options.worker_id, running.job.lease, lease_seconds=1)
        try:
            await asyncio.wait_for(beat, LAST_WORDS_SECONDS)
        except (DatabaseFault, TimeoutError) as fault:
            log.warning("lease_kept", queue_id=running.job.queue_id, error=str(fault))

    async def keep_leases(self) -> None:
        """Renew the leases of all jobs in one statement, each third of their length; kill the jobs of lost ones.

        Those whose answers wait are renewed as well: nobody else is to begin what is done.
        """
        third = self.options.lease_seconds / 3
        backoff = Backoff(least=RETRY_SECONDS[0], most=min(RETRY_SECONDS[1], third))
        pause = third
        while True:
            await asyncio.sleep(pause)
            until = self._lease_until()
            # Of two attempts of one job the later: the answer of the earlier waits, and comes too late.
            held = {running.job.queue_id: running for running in sorted(self.running, key=attempt_of)}
            try:
                yours = await self._renew(held, patience=third)
            except DatabaseFault as fault:
                pause = backoff.next()
                log.warning("heartbeat_failed", jobs=len(held), error=str(fault), pause_seconds=round(pause, 2))
                continue
            backoff.reset()
            pause = third
            for queue_id, running in held.items():
                if running not in self.running:
                    continue
                if yours.get(queue_id):
                    running.hold(until)
                else:
                    running.end("lease lost")

    async def _renew(self, held: dict[int, Running], *, patience: float) -> dict[int, bool]:
        if not held:
            return {}
        lease_seconds, leases = self.options.lease_seconds, [running.job.lease for running in held.values()]
        return await heartbeat_jobs(
            self.database, self.options.worker_id, leases, lease_seconds=lease_seconds, patience=patience
        )

    async def drain(self) -> None:
        """Let running jobs finish and answers be sent for `drain_seconds`, then kill and give up what is left.

        The leases of what was killed are let run out; an answer that has just come has a moment more.
        """
        left = {running.task for running in self.running if running.task is not None}
        if not left:
            return
        log.info("worker_draining", jobs=len(left), limit_seconds=self.options.drain_seconds)
        _, left = await asyncio.wait(left, timeout=self.options.drain_seconds)
        for running in list(self.running):
            running.end(STOPPED)
        moment = min(max(self.options.drain_seconds / 10, LAST_ANSWER_SECONDS[0]), LAST_ANSWER_SECONDS[1])
        while left:
            self.reporter.give_up(after_seconds=moment)
            _, left = await asyncio.wait(left, timeout=moment)


def attempt_of(running: Running) -> int:
    """Give the number of a job's lease."""
    return running.job.attempt


def ending(outcome: Success | Failure) -> dict[str, Any]:
    """Give what the log tells of an outcome: no payload, no message of a step's code."""
    if isinstance(outcome, Success):
        return {"outcome": "done", "result_characters": len(outcome.result)}
    return {"outcome": "failed", "error_type": outcome.error.get("type"), "retryable": outcome.retryable}


def types_of(options: WorkerOptions, tools: Mapping[str, Tool] | None) -> tuple[str, ...]:
    """Give the job types to lease; raises OperatorFault for one that the worker has no tool for.

    With tools of its own (not None) a worker takes their types alone, unless it is told of more.
    """
    able = types_with(TOOLS if tools is None else tools)
    asked = tuple(sorted(able if tools is None else tools)) if options.types is None else options.types
    unknown = sorted(set(asked) - able)
    if unknown or not asked:
        named = ", ".join(unknown) or "nothing"
        near = [word for name in unknown for word in get_close_matches(name, able, n=1)]
        meant = f"did you mean {' and '.join(near)}? It" if near else "it"
        raise OperatorFault(f"the worker has no tool for {named}; {meant} has {', '.join(sorted(able))}")
    return asked


async def run_worker(options: WorkerOptions, stop: asyncio.Event, tools: Mapping[str, Tool] | None = None) -> Tally:
    """Work until `stop` is set, then drain and say what was done; `tools` by type in place of the built-in ones.

    Waits for a database that is away. Raises OperatorFault for options or a DSN that cannot work, PermissionFault and
    SchemaFault when the database will not have this worker.
    """
    types = types_of(options, tools)
    environment = dict(os.environ)
    interpreters = Interpreters(visible_environment(environment), spare=min(options.concurrency, 2))
    tls = httpx.create_ssl_context()
    lent = Lent(dsn=options.dsn, environment=environment, interpreters=interpreters, tls=tls, tools=tools)
    log.info("worker_started", worker_id=options.worker_id, types=types, concurrency=options.concurrency)
    async with JobDatabase(options.dsn, application_name="noetl-broker worker") as database:
        if options.null:
            return await run_null(options, database, stop)
        reporter = Reporter(database, options.worker_id)
        pool = Pool(options=options, database=database, reporter=reporter, lent=lent, types=types)
        keepers = [asyncio.create_task(reporter.serve()), asyncio.create_task(pool.keep_leases())]
        try:
            await beside(in_time(pool.lease_until(stop), stop, grace=LAST_WORDS_SECONDS), keepers)
        finally:
            try:
                await pool.drain()
            finally:  # whoever cancels the drain leaves no answer behind that is sent for ever
                for keeper in keepers:
                    keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            await interpreters.close()
            log.info("worker_stopped", worker_id=options.worker_id, **asdict(pool.tally))
    return pool.tally
