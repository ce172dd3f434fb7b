"""Hands the outcomes of jobs to the database, all that have gathered in one round trip, for as long as it takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from noetl_broker.errors import DatabaseFault
from noetl_broker.store.jobs import (
    Completion,
    Failing,
    JobDatabase,
    Lease,
    RefusedFault,
    complete_jobs,
    fail_jobs,
    refuses,
)
from noetl_broker.worker.execute import Success
from noetl_broker.worker.faults import Failure
from noetl_broker.worker.logger import Log
from noetl_broker.worker.waiting import RETRY_SECONDS, Backoff

Answer = Completion | Failing

log = Log(__name__)


def answer_of(lease: Lease, outcome: Success | Failure) -> Answer:
    """Put an outcome into the form that the database takes."""
    if isinstance(outcome, Success):
        return Completion(lease, outcome.result)
    return Failing(lease, outcome.error, outcome.retryable)


def refusal(answer: Answer, fault: RefusedFault | DatabaseFault) -> Failing:
    """Make of an answer that the database will not take one that it will."""
    message = f"the result of the job could not be stored: {fault}"
    limit = fault.limit if isinstance(fault, RefusedFault) else None
    return Failing(answer.lease, {"message": message, "type": limit or "bad_result"}, retryable=False)


class Said(StrEnum):
    """What became of an answer."""

    COUNTED = "counted"
    TOO_LATE = "too late"  # the lease was taken over, or the attempt was ended: nothing was changed
    REFUSED = "refused"  # the database takes it neither as it is nor as a failure
    NOT_SENT = "not sent"  # the worker stops


@dataclass(slots=True, kw_only=True, eq=False)
class Waiting:
    """An answer that waits for the database, and since when by the loop's clock."""

    answer: Answer
    since: float
    said: asyncio.Future[Said]


class Reporter:
    """Takes answers from running jobs and says to each what became of it.

    An answer is tried for as long as the worker lives, whatever became of its lease: the database decides whether it
    comes too late. Each keeps the slot of its job, so no more of them wait than the worker does jobs at a time.
    """

    def __init__(self, database: JobDatabase, worker_id: str) -> None:
        self._database = database
        self._worker_id = worker_id
        self._waiting: list[Waiting] = []
        self._arrived = asyncio.Event()
        self._backoff = Backoff(least=RETRY_SECONDS[0], most=RETRY_SECONDS[1])
        self._closed = False
        self.trouble: str | None = None  # why answers wait

    async def report(self, answer: Answer) -> Said:
        """Wait until the database has the answer, or the worker gives it up; whoever cancels the job ends neither."""
        loop = asyncio.get_running_loop()
        waiting = Waiting(answer=answer, since=loop.time(), said=loop.create_future())
        if self._closed:
            return Said.NOT_SENT
        self._waiting.append(waiting)
        self._arrived.set()
        while not waiting.said.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([waiting.said])
        return waiting.said.result()

    def give_up(self, *, after_seconds: float = 0.0) -> None:
        """Give up the answers that have waited for so long, for the worker stops."""
        latest = asyncio.get_running_loop().time() - after_seconds
        for waiting in self._waiting:
            if waiting.since <= latest and not waiting.said.done():
                waiting.said.set_result(Said.NOT_SENT)

    async def serve(self) -> None:
        """Send what has gathered, again and again, until cancelled; what is left then is given up."""
        try:
            while True:
                self._forget()
                await self._arrived.wait()
                self._arrived.clear()
                self._forget()
                await self._serve_batch(self._next_batch())
        finally:
            self._closed = True
            self.give_up()

    def _forget(self) -> None:
        self._waiting = [waiting for waiting in self._waiting if not waiting.said.done()]

    def _next_batch(self) -> list[Waiting]:
        """Give what waits; of two answers to one job, for attempts that were both ours, the second comes later."""
        batch: dict[int, Waiting] = {}
        for waiting in self._waiting:
            batch.setdefault(waiting.answer.lease.queue_id, waiting)
        if len(batch) < len(self._waiting):
            self._arrived.set()
        return [*batch.values()]

    async def _serve_batch(self, batch: Sequence[Waiting]) -> None:
        try:
            said = await self._send([waiting.answer for waiting in batch])
        except DatabaseFault as fault:
            self.trouble = str(fault)
            self._arrived.set()
            pause = self._backoff.next()
            log.warning("answers_wait", answers=len(batch), error=self.trouble, pause_seconds=round(pause, 2))
            await asyncio.sleep(pause)
            return
        self._backoff.reset()
        for waiting in batch:
            if not waiting.said.done():
                waiting.said.set_result(said[waiting.answer.lease.queue_id])

    async def _send(self, answers: Sequence[Answer]) -> dict[int, Said]:
        """Send a batch; where the database refuses a value in it, send one by one and fail the job of that value.

        What it takes neither way is dropped: the lease of that job runs out, and nobody else waits for it. Gives what
        became of each, by `queue_id`.
        """
        try:
            return await self._send_batch(answers)
        except (RefusedFault, DatabaseFault) as fault:
            if not refuses(fault):
                raise
            if len(answers) == 1:
                return await self._send_refusal(answers[0], fault)
        said: dict[int, Said] = {}
        for answer in answers:
            said |= await self._send([answer])
        return said

    async def _send_refusal(self, answer: Answer, fault: RefusedFault | DatabaseFault) -> dict[int, Said]:
        log.warning("answer_refused", queue_id=answer.lease.queue_id, error=str(fault))
        try:
            return await self._send_batch([refusal(answer, fault)])
        except (RefusedFault, DatabaseFault) as again:
            if not refuses(again):
                raise
            return {answer.lease.queue_id: Said.REFUSED}

    async def _send_batch(self, answers: Sequence[Answer]) -> dict[int, Said]:
        completions = [answer for answer in answers if isinstance(answer, Completion)]
        failings = [answer for answer in answers if isinstance(answer, Failing)]
        counted: dict[int, bool] = {}
        if completions:
            counted |= await complete_jobs(self._database, self._worker_id, completions)
        if failings:
            counted |= await fail_jobs(self._database, self._worker_id, failings)
        return {queue_id: Said.COUNTED if yours else Said.TOO_LATE for queue_id, yours in counted.items()}
