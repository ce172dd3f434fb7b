"""A worker of functions: what they raise and give becomes the answer, whatever it is."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from noetl_broker import Job, JobFailed, Worker
from tests.postgres import Database
from tests.worker.test_pool import PATIENCE_SECONDS, Queue, queue

__all__ = ["queue"]
MOMENT = datetime(2026, 1, 2, tzinfo=UTC)


@asynccontextmanager
async def doing(database: Database, function: Callable[[Job], Any], **options: Any) -> AsyncIterator[asyncio.Event]:
    """Have a worker at work that does the jobs of type `own` by this function; gives its stop."""
    worker, stop = Worker(database.dsn, poll_max_seconds=0.2, **options), asyncio.Event()
    worker.task("own")(function)
    task = asyncio.create_task(worker.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await task


async def test_a_failure_with_details_that_are_no_json_is_told_as_text(database: Database, queue: Queue) -> None:
    """The job fails with them, and the worker goes on."""
    details: dict[str, Any] = {
        "until": MOMENT,
        "left": Decimal("1.5"),
        "id": uuid.UUID(int=7),
        "of": {"a"},
        "at": {1: float("nan")},
    }

    async def fails(job: Job) -> None:
        if job.args:
            raise JobFailed("quota", kind="quota", **details)

    async with doing(database, fails):
        queue_id = await queue.put_one({"type": "own", "args": {"a": 1}})
        await queue.until(queue_id, "failed")
        await queue.until(await queue.put_one({"type": "own"}), "done")
    [(_, _, error)] = await queue.events(queue_id)
    expected = {"until": "2026-01-02T00:00:00+00:00", "left": 1.5, "id": str(uuid.UUID(int=7)), "of": ["a"]}
    assert error == {"message": "quota", "type": "quota", "at": {"1": "nan"}, **expected}


async def test_a_failure_whose_details_cannot_be_told_is_one_all_the_same(database: Database, queue: Queue) -> None:
    """A list that holds itself, a number without end: the job fails, and says of what."""
    endless: list[Any] = []
    endless.append(endless)

    async def fails(job: Job) -> None:
        raise JobFailed("no", seen=endless if job.args else 10**5000)

    async with doing(database, fails):
        for args in ({}, {"a": 1}):
            await queue.until(await queue.put_one({"type": "own", "args": args}), "failed")


async def test_a_failure_may_be_made_of_an_exception(database: Database, queue: Queue) -> None:
    """Its message is the exception's."""

    async def fails(job: Job) -> None:
        try:
            job.args["there"]
        except KeyError as error:
            raise JobFailed(error, kind="missing") from error

    async with doing(database, fails):
        queue_id = await queue.put_one({"type": "own"})
        await queue.until(queue_id, "failed")
    [(_, _, error)] = await queue.events(queue_id)
    assert (error["message"], error["type"]) == ("'there'", "missing")


async def test_a_result_that_is_no_json_is_named_with_its_place(database: Database, queue: Queue) -> None:
    """It is the function's mistake, and the same job can never succeed."""
    endless: list[Any] = []
    endless.append(endless)
    results = [{"a": [1, MOMENT]}, {"rate": float("nan")}, {(1, 2): 3}, endless, 10**5000, (1, None, True, 0.5)]

    async def gives(job: Job) -> Any:
        return results[job.args["n"]]

    answers = []
    async with doing(database, gives):
        for number in range(len(results)):
            queue_id = await queue.put_one({"type": "own", "args": {"n": number}})
            await queue.until(queue_id, "failed", "done")
            [(_, result, error)] = await queue.events(queue_id)
            answers.append(result or (error["type"], error["message"].partition(" is no JSON")[0]))
    places = ["result['a'][1]", "result['rate']", "the result", "the result", "the result"]
    assert answers == [*(("bad_result", place) for place in places), [1, None, True, 0.5]]


async def test_plain_functions_run_as_many_at_once_as_the_worker_may(database: Database, queue: Queue) -> None:
    """Each waits until all are there; the threads of the event loop would be fewer."""
    many = 40
    together = threading.Barrier(many, timeout=PATIENCE_SECONDS)

    def meets(_job: Job) -> int:
        return together.wait()

    async with doing(database, meets, concurrency=many):
        jobs = [await queue.put_one({"type": "own"}) for _ in range(many)]
        for queue_id in jobs:
            await queue.until(queue_id, "done")
    assert not together.broken


async def test_code_that_ends_the_program_fails_its_job(database: Database, queue: Queue) -> None:
    """The worker goes on, whichever kind of function it is."""

    async def leaves(job: Job) -> None:
        if job.args:
            sys.exit("enough")

    def leaves_too(job: Job) -> None:
        if job.args:
            sys.exit("enough")

    for function in (leaves, leaves_too):
        async with doing(database, function):
            queue_id = await queue.put_one({"type": "own", "args": {"a": 1}})
            await queue.until(queue_id, "failed")
            await queue.until(await queue.put_one({"type": "own"}), "done")
        [(_, _, error)] = await queue.events(queue_id)
        assert (error["message"], error["type"]) == ("enough", "SystemExit")


class Panic(BaseException):
    """What a library in another language raises when it breaks: no Exception."""


async def awaits_the_cancelled(_job: Job) -> None:
    """Wait for what somebody else gave up."""
    given_up = asyncio.get_running_loop().create_future()
    given_up.cancel()
    await given_up


async def panics(_job: Job) -> None:
    """Break."""
    raise Panic("broken")


def is_cancelled(_job: Job) -> None:
    """Raise, outside every loop, what a loop raises."""
    raise asyncio.CancelledError


def panics_too(_job: Job) -> None:
    """Break in a thread."""
    raise Panic("broken")


async def is_interrupted(_job: Job) -> None:
    """Raise what Ctrl-C raises, though nobody pressed it."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("function", [awaits_the_cancelled, is_cancelled, panics, panics_too, is_interrupted])
async def test_whatever_a_function_raises_fails_its_job(
    database: Database, queue: Queue, function: Callable[[Job], Any]
) -> None:
    """Also what is no Exception, and a cancellation where nobody cancelled the job; the worker goes on."""

    async def does(job: Job) -> Any:
        return await function(job) if job.args else None

    def does_too(job: Job) -> Any:
        return function(job) if job.args else None

    async with doing(database, does if inspect.iscoroutinefunction(function) else does_too):
        queue_id = await queue.put_one({"type": "own", "args": {"a": 1}})
        await queue.until(queue_id, "failed")
        await queue.until(await queue.put_one({"type": "own"}), "done")
    [(_, _, error)] = await queue.events(queue_id)
    expected = {"panics": "Panic", "panics_too": "Panic", "is_interrupted": "KeyboardInterrupt"}
    assert error["type"] == expected.get(function.__name__, "CancelledError")


STUCK = """
import asyncio, sys, threading
from noetl_broker import Worker

worker, stop = Worker(sys.argv[1], drain_seconds=0.1), None

@worker.task("own")
def never(job):
    stopping.call_soon_threadsafe(stop.set)
    threading.Event().wait()

async def main():
    global stop, stopping
    stop, stopping = asyncio.Event(), asyncio.get_running_loop()
    await worker.run(stop)

asyncio.run(main())
"""


async def test_a_function_that_never_returns_does_not_outlive_the_stop(database: Database, queue: Queue) -> None:
    """The program ends when the worker has let go of its job."""
    await queue.put_one({"type": "own"})
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STUCK, database.dsn, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await program.wait() == 0
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_lets_the_running_job_finish(database: Database, queue: Queue, number: signal.Signals) -> None:
    """SIGHUP comes when the terminal is closed; the program goes on after `run`."""
    began, goes_on = asyncio.Event(), asyncio.Event()

    async def waits(_job: Job) -> int:
        began.set()
        await goes_on.wait()
        return 1

    worker = Worker(database.dsn, poll_max_seconds=0.2)
    worker.task("own")(waits)
    task = asyncio.create_task(worker.run())
    queue_id = await queue.put_one({"type": "own"})
    await asyncio.wait_for(began.wait(), PATIENCE_SECONDS)
    os.kill(os.getpid(), number)
    goes_on.set()
    await asyncio.wait_for(task, PATIENCE_SECONDS)
    assert await queue.status(queue_id) == "done"
