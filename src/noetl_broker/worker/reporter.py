"""Reports the outcomes of jobs: answers to the database, all that wait in one round trip, and spans to traces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial

from noetl_broker.errors import DatabaseFault
from noetl_broker.growing_pauses import JITTER, RETRY_SECONDS, Backoff
from noetl_broker.store.worker.jobs import (
    AttemptFailure,
    Completion,
    JobDatabase,
    Lease,
    LeasedJob,
    RefusedFault,
    complete_jobs,
    fail_jobs,
    traceparent_of,
)
from noetl_broker.tasks import wait_for
from noetl_broker.tracing.spans import Emit, Span, reason_of, span_id_of
from noetl_broker.worker.errors import Failure
from noetl_broker.worker.executor import Success
from noetl_broker.worker.logger import Log, job_fields

Answer = Completion | AttemptFailure
Complete = Callable[[Sequence[Completion]], Awaitable[dict[int, bool]]]
GATHER_SECONDS = 0.002  # that an answer waits for the answers of other short jobs

log = Log(__name__)


def answer_of(lease: Lease, outcome: Success | Failure) -> Answer:
    """The answer in the form that the database takes."""
    if isinstance(outcome, Success):
        return Completion(lease, outcome.result)
    return AttemptFailure(lease, outcome.error, outcome.retryable)


def refusal(answer: Answer, fault: RefusedFault) -> AttemptFailure:
    """The failure to report in place of an answer that the database refused."""
    message = f"the result of the job could not be stored: {fault}"
    return AttemptFailure(answer.lease, {"message": message, "type": fault.limit or "bad_result"}, retryable=False)


class Receipt(StrEnum):
    """The outcome of sending an answer."""

    COUNTED = "counted"
    TOO_LATE = "too late"  # the job has another lease, or its attempt has ended: nothing was changed
    REFUSED = "refused"  # the database takes neither the answer nor a failure in its place
    NOT_SENT = "not sent"  # the worker stops


@dataclass(slots=True, kw_only=True, eq=False)
class PendingAnswer:
    """An answer that waits for the database, and since when, by the loop's clock."""

    answer: Answer
    since: float
    receipt: asyncio.Future[Receipt]


class Reporter:
    """Takes the answers of running jobs and returns a receipt for each.

    It sends an answer until the worker stops, even if the lease is lost: the database decides whether it is too late. A
    job keeps its slot until then, so at most `concurrency` answers wait. Answers that come during a call go
    together in the next one. An answer is sent at once, unless others may come soon: several answers together cost
    little more than one.
    """

    def __init__(
        self,
        database: JobDatabase,
        worker_id: str,
        complete: Complete | None = None,
        more_soon: Callable[[], bool] = lambda: False,
        on_fault: Callable[[], None] = lambda: None,
    ) -> None:
        """`complete` sends completions, and returns by `queue_id` whether each was accepted.

        `more_soon` tells whether to wait GATHER_SECONDS for other answers. `on_fault` is called when `in_trouble`
        becomes true.
        """
        self._database = database
        self._worker_id = worker_id
        self._complete = complete or partial(complete_jobs, database, worker_id)
        self._more_soon = more_soon
        self._on_fault = on_fault
        self._waiting: list[PendingAnswer] = []
        self._arrived = asyncio.Event()
        self._backoff = Backoff(*RETRY_SECONDS, JITTER)
        self._closed = False
        self.trouble: str | None = None  # why answers wait

    @property
    def in_trouble(self) -> bool:
        """Whether the database did not take the last answers."""
        return self._backoff.pause > 0

    async def report(self, answer: Answer) -> Receipt:
        """Wait until the database has the answer, or the worker gives it up. Cancelling the job does not end it."""
        loop = asyncio.get_running_loop()
        waiting = PendingAnswer(answer=answer, since=loop.time(), receipt=loop.create_future())
        if self._closed:
            return Receipt.NOT_SENT
        self._waiting.append(waiting)
        self._arrived.set()
        while not waiting.receipt.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([waiting.receipt])
        return waiting.receipt.result()

    def give_up(self, *, after_seconds: float = 0.0) -> None:
        """Give up the answers that have waited for so long: the worker stops."""
        latest = asyncio.get_running_loop().time() - after_seconds
        for waiting in self._waiting:
            if waiting.since <= latest and not waiting.receipt.done():
                waiting.receipt.set_result(Receipt.NOT_SENT)

    async def run(self) -> None:
        """Send answers until cancelled; then give up the unsent answers."""
        try:
            while True:
                self._remove_done()
                await self._arrived.wait()
                await self._gather()
                self._remove_done()
                await self._send_waiting(self._next_batch())
        finally:
            self._closed = True
            self.give_up()

    async def _gather(self) -> None:
        """Wait a moment for the answers that may come soon."""
        clock = asyncio.get_running_loop().time
        end = clock() + GATHER_SECONDS
        self._arrived.clear()
        while self._more_soon() and (left := end - clock()) > 0:
            await wait_for(self._arrived, left)
            self._arrived.clear()

    def _remove_done(self) -> None:
        self._waiting = [waiting for waiting in self._waiting if not waiting.receipt.done()]

    def _next_batch(self) -> list[PendingAnswer]:
        """The waiting answers, one for each job: a second attempt of the same job waits for the next batch."""
        batch: dict[int, PendingAnswer] = {}
        for waiting in self._waiting:
            batch.setdefault(waiting.answer.lease.queue_id, waiting)
        if len(batch) < len(self._waiting):
            self._arrived.set()
        return [*batch.values()]

    async def _send_waiting(self, batch: Sequence[PendingAnswer]) -> None:
        try:
            receipts = await self._send([waiting.answer for waiting in batch])
        except DatabaseFault as fault:
            self.trouble = str(fault)
            self._arrived.set()
            pause = self._backoff.next()
            self._on_fault()
            log.warning("answers_wait", answers=len(batch), error=self.trouble, pause_seconds=round(pause, 2))
            await asyncio.sleep(pause)
            return
        self._backoff.reset()
        for waiting in batch:
            if not waiting.receipt.done():
                waiting.receipt.set_result(receipts[waiting.answer.lease.queue_id])

    async def _send(self, answers: Sequence[Answer]) -> dict[int, Receipt]:
        """Send a batch; returns the receipts by `queue_id`.

        If the database refuses a value, each answer is sent alone, and the refused one becomes a failure. If that is
        refused too, it is dropped: the lease runs out.
        """
        try:
            return await self._send_batch(answers)
        except RefusedFault as fault:
            if len(answers) == 1:
                return await self._send_refusal(answers[0], fault)
        receipts: dict[int, Receipt] = {}
        for answer in answers:
            receipts |= await self._send([answer])
        return receipts

    async def _send_refusal(self, answer: Answer, fault: RefusedFault) -> dict[int, Receipt]:
        log.warning("answer_refused", **answer.lease._asdict(), error=str(fault))
        try:
            return await self._send_batch([refusal(answer, fault)])
        except RefusedFault:
            return {answer.lease.queue_id: Receipt.REFUSED}

    async def _send_batch(self, answers: Sequence[Answer]) -> dict[int, Receipt]:
        completions = [answer for answer in answers if isinstance(answer, Completion)]
        failures = [answer for answer in answers if isinstance(answer, AttemptFailure)]
        counted: dict[int, bool] = {}
        if completions:
            counted |= await self._complete(completions)
        if failures:
            counted |= await fail_jobs(self._database, self._worker_id, failures)
        return {queue_id: Receipt.COUNTED if accepted else Receipt.TOO_LATE for queue_id, accepted in counted.items()}


async def send_span(
    database: JobDatabase, emit: Emit, job: LeasedJob, outcome: Success | Failure, began_at: datetime
) -> None:
    """Send the span of one attempt. It is tried once: the answer is given already."""
    ended_at = datetime.now(UTC)
    try:
        traceparent = await traceparent_of(database, job)
    except (DatabaseFault, RefusedFault) as fault:
        log.warning("span_lost", **job_fields(job), error=str(fault))
    else:
        emit([attempt_span(job, traceparent, outcome, began_at, ended_at)])


def attempt_span(
    job: LeasedJob, traceparent: str, outcome: Success | Failure, began_at: datetime, ended_at: datetime
) -> Span:
    """The span of one attempt, below the span of its visit. `traceparent` is the database's; times are the worker's."""
    _, trace_id, parent_id, _ = traceparent.split("-")
    return Span(
        trace_id=trace_id,
        span_id=span_id_of(f"{job.node_id}@{job.attempt}"),
        parent_id=parent_id,
        name=f"{job.node_type} {job.node_name}",
        began_at=began_at,
        ended_at=ended_at,
        attributes={
            "noetl.execution_id": job.execution_id,
            "noetl.node_id": job.node_id,
            "noetl.type": job.node_type,
            "noetl.attempt": job.attempt,
        },
        failed=None if isinstance(outcome, Success) else reason_of(outcome.error),
        remote=True,
    )
