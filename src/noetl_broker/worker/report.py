"""Hands the outcomes of jobs to the database, all that have gathered in one round trip, for as long as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

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
from noetl_broker.worker.waiting import Backoff

Answer = Completion | Failing

log = structlog.get_logger(__name__)


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


class Reporter:
    """Takes answers from running jobs and says to each whether it counted."""

    def __init__(self, database: JobDatabase, worker_id: str) -> None:
        self._database = database
        self._worker_id = worker_id
        self._waiting: list[tuple[Answer, asyncio.Future[bool]]] = []
        self._arrived = asyncio.Event()
        self._backoff = Backoff(least=0.1, most=5.0)

    async def report(self, answer: Answer) -> bool:
        """Wait until the database has the answer; false: the lease was taken over, and nothing was changed."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((answer, future))
        self._arrived.set()
        return bool(await future)

    async def serve(self) -> None:
        """Send what has gathered, again and again, until cancelled; an answer whose job gave up waiting is dropped."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batch = [(answer, future) for answer, future in self._waiting if not future.done()]
            self._waiting.clear()
            try:
                counted = await self._send([answer for answer, _ in batch])
            except DatabaseFault as fault:
                self._waiting[:0] = batch
                self._arrived.set()
                pause = self._backoff.next()
                log.warning("answers_wait", answers=len(batch), error=str(fault), pause_seconds=round(pause, 2))
                await asyncio.sleep(pause)
                continue
            self._backoff.reset()
            for answer, future in batch:
                if not future.done():
                    future.set_result(counted.get(answer.lease.queue_id, False))

    async def _send(self, answers: Sequence[Answer]) -> dict[int, bool]:
        """Send a batch; where the database refuses a value in it, send one by one and fail the job of that value.

        What it takes neither way is dropped: the lease of that job runs out, and nobody else waits for it.
        """
        try:
            return await self._send_batch(answers)
        except (RefusedFault, DatabaseFault) as fault:
            if not refuses(fault):
                raise
            if len(answers) == 1:
                return await self._send_refusal(answers[0], fault)
        counted: dict[int, bool] = {}
        for answer in answers:
            counted |= await self._send([answer])
        return counted

    async def _send_refusal(self, answer: Answer, fault: RefusedFault | DatabaseFault) -> dict[int, bool]:
        log.warning("answer_refused", queue_id=answer.lease.queue_id, error=str(fault))
        try:
            return await self._send_batch([refusal(answer, fault)])
        except (RefusedFault, DatabaseFault) as again:
            if not refuses(again):
                raise
            return {}

    async def _send_batch(self, answers: Sequence[Answer]) -> dict[int, bool]:
        completions = [answer for answer in answers if isinstance(answer, Completion)]
        failings = [answer for answer in answers if isinstance(answer, Failing)]
        counted: dict[int, bool] = {}
        if completions:
            counted |= await complete_jobs(self._database, self._worker_id, completions)
        if failings:
            counted |= await fail_jobs(self._database, self._worker_id, failings)
        return counted
