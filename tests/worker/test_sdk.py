"""A worker of functions: whatever they return or raise becomes an answer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from noetl_broker import Job, JobFailed, Worker
from tests.brokers import rows
from tests.postgres import Database
from tests.worker.test_loop import PATIENCE_SECONDS, Queue, queue

__all__ = ["queue"]
MOMENT = datetime(2026, 1, 2, tzinfo=UTC)


@asynccontextmanager
async def doing(database: Database, function: Callable[[Job], Any], **options: Any) -> AsyncIterator[asyncio.Event]:
    """Run a worker that runs this function for jobs of the type `own`; gives its stop event."""
    worker, stop = Worker(database.dsn, schema=database.schema, poll_max_seconds=0.2, **options), asyncio.Event()
    worker.task("own")(function)
    task = asyncio.create_task(worker.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await task


async def test_a_secret_of_the_environment_is_not_in_an_error(
    database: Database, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function reads all variables, also those that no step is given."""
    monkeypatch.setenv("GITHUB_TOKEN", "ghp-0123456789")

    async def fails(_job: Job) -> None:
        raise JobFailed(os.environ["GITHUB_TOKEN"], retryable=False)

    async with doing(database, fails):
        queue_id = await queue.put_one({"type": "own", "args": {}})
        await queue.until(queue_id, "failed")
    assert [error["message"] for _, _, error in await queue.events(queue_id)] == ["[secret]"]


async def test_the_details_of_a_failure_are_in_its_error(database: Database, queue: Queue) -> None:
    """What is no JSON becomes text; an error without what cannot be stored is an error. The worker goes on."""
    details: dict[str, Any] = {
        "until": MOMENT,
        "left": Decimal("1.5"),
        "id": uuid.UUID(int=7),
        "of": {"a"},
        "at": {1: float("nan")},
    }
    endless: list[Any] = []
    endless.append(endless)
    failures = [
        JobFailed("quota", kind="quota", **details),
        JobFailed(KeyError("there"), kind="missing"),
        JobFailed("no", seen=endless),
        JobFailed("no", seen=10**5000),
    ]

    async def fails(job: Job) -> None:
        raise failures[job.args["n"]]

    errors = []
    async with doing(database, fails):
        for number in range(len(failures)):
            queue_id = await queue.put_one({"type": "own", "args": {"n": number}})
            await queue.until(queue_id, "failed")
            errors += [error for _, _, error in await queue.events(queue_id)]
    expected = {"until": "2026-01-02T00:00:00+00:00", "left": 1.5, "id": str(uuid.UUID(int=7)), "of": ["a"]}
    assert errors[0] == {"message": "quota", "type": "quota", "at": {"1": "nan"}, **expected}
    assert (errors[1]["message"], errors[1]["type"], len(errors)) == ("'there'", "missing", 4)


async def test_a_result_that_is_no_json_is_refused_with_its_place(database: Database, queue: Queue) -> None:
    """It is not retryable."""
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


async def test_as_many_plain_functions_run_at_once_as_the_concurrency_allows(database: Database, queue: Queue) -> None:
    """Each waits until all have begun; asyncio would have fewer threads."""
    many = 40
    together = threading.Barrier(many, timeout=PATIENCE_SECONDS)

    def meets(_job: Job) -> int:
        return together.wait()

    async with doing(database, meets, concurrency=many):
        jobs = [await queue.put_one({"type": "own"}) for _ in range(many)]
        for queue_id in jobs:
            await queue.until(queue_id, "done")
    assert not together.broken


class Panic(BaseException):
    """An error of a broken native library: no Exception."""


async def awaits_the_cancelled(_job: Job) -> None:
    """Await a cancelled future."""
    given_up = asyncio.get_running_loop().create_future()
    given_up.cancel()
    await given_up


async def cancels_itself(_job: Job) -> None:
    """Cancel the task in which it is called."""
    await cancels_itself_and_returns(_job)
    await asyncio.Event().wait()


async def cancels_itself_and_returns(_job: Job) -> None:
    """Cancel the task, which would notice it at its next await."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def raises(error: BaseException) -> Callable[[Job], Any]:
    """Make a function that raises this in a thread."""

    def fails(_job: Job) -> None:
        raise error

    return fails


def raises_in_the_loop(error: BaseException) -> Callable[[Job], Awaitable[None]]:
    """Make a function that raises this."""

    async def fails(_job: Job) -> None:
        raise error

    return fails


ENDINGS: list[tuple[Callable[[Job], Any], str, str]] = [
    (awaits_the_cancelled, "CancelledError", ""),
    (cancels_itself, "CancelledError", "the task cancelled itself"),
    (cancels_itself_and_returns, "CancelledError", "the task cancelled itself"),
    (raises(asyncio.CancelledError()), "CancelledError", ""),
    (raises(Panic("broken")), "Panic", "broken"),
    (raises_in_the_loop(Panic("broken")), "Panic", "broken"),
    (raises_in_the_loop(KeyboardInterrupt()), "KeyboardInterrupt", ""),
    (raises(SystemExit("enough")), "SystemExit", "enough"),
    (raises_in_the_loop(SystemExit("enough")), "SystemExit", "enough"),
    (lambda job: job.args["m"], "KeyError", "'m'"),
]


async def test_any_exception_of_a_function_fails_its_job(database: Database, queue: Queue) -> None:
    """Also an exit, a BaseException, or a cancellation of its own: at once, with its place, and the worker goes on."""
    worker, stop = Worker(database.dsn, schema=database.schema, poll_max_seconds=0.2), asyncio.Event()
    for number, (function, _, _) in enumerate(ENDINGS):
        worker.task(f"own{number}")(function)
    task = asyncio.create_task(worker.run(stop))
    errors, traceback = [], ""
    for number in range(len(ENDINGS)):
        queue_id = await queue.put_one({"type": f"own{number}", "args": {}})
        await queue.until(queue_id, "failed")
        [(_, _, error)] = await queue.events(queue_id)
        errors.append((error["type"], error["message"]))
        traceback = error.get("traceback")
    stop.set()
    await asyncio.wait_for(task, PATIENCE_SECONDS)
    assert [kind for kind, _ in errors] == [kind for _, kind, _ in ENDINGS]
    assert all(words in message for (_, message), (_, _, words) in zip(errors, ENDINGS, strict=True)), errors
    assert 'lambda job: job.args["m"]' in traceback


STUCK = """
import asyncio, sys, threading
from noetl_broker import Worker

worker, stop = Worker(sys.argv[1], schema=sys.argv[2], drain_seconds=0.1), None

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


async def test_a_function_that_never_returns_does_not_outlive_the_program(database: Database, queue: Queue) -> None:
    """The program ends when the worker has released its job."""
    await queue.put_one({"type": "own"})
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STUCK, database.dsn, database.schema, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await program.wait() == 0
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


async def test_a_signal_lets_running_jobs_finish(database: Database, queue: Queue) -> None:
    """SIGHUP too. The program goes on after `run`."""
    began, goes_on = asyncio.Event(), asyncio.Event()

    async def waits(_job: Job) -> int:
        began.set()
        await goes_on.wait()
        return 1

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        worker = Worker(database.dsn, schema=database.schema, poll_max_seconds=0.2)
        worker.task("own")(waits)
        task = asyncio.create_task(worker.run())
        queue_id = await queue.put_one({"type": "own"})
        await asyncio.wait_for(began.wait(), PATIENCE_SECONDS)
        os.kill(os.getpid(), number)
        goes_on.set()
        await asyncio.wait_for(task, PATIENCE_SECONDS)
        assert await queue.status(queue_id) == "done"
        began.clear()
        goes_on.clear()


async def test_a_worker_announces_its_types(database: Database, queue: Queue) -> None:
    """Registration accepts them. Those that are built in need it not."""
    worker, stop = Worker(database.dsn, schema=database.schema, poll_max_seconds=0.2), asyncio.Event()
    worker.task("own")(lambda _job: None)
    worker.task("python")(lambda _job: None)
    task = asyncio.create_task(worker.run(stop))
    await queue.until(await queue.put_one({"type": "own"}), "done")
    stop.set()
    await task
    assert await rows(database, "select name from noetl.step_type") == [("own",)]


async def test_a_worker_that_may_not_announce_its_types_works(database: Database, queue: Queue) -> None:
    """For want of a right, or because the broker runs the type itself. The worker says why, and takes its jobs."""
    worker, stop = Worker(database.dsn, schema=database.schema, poll_max_seconds=0.2), asyncio.Event()
    worker.task("wait")(lambda _job: None)
    task = asyncio.create_task(worker.run(stop))
    await queue.until(await queue.put_one({"type": "wait"}), "done")
    stop.set()
    await task
    assert await rows(database, "select name from noetl.step_type") == []


FAILS_LATER = """
create sequence public.tries;
create function public.refuse() returns trigger language plpgsql as $$
begin
  if new.event_type = 'action_failed' and nextval('public.tries') < 5 then
    raise exception using errcode = '55P03', message = 'later';
  end if;
  return new;
end $$;
create trigger refuse before insert on noetl.event for each row execute function public.refuse();
"""


async def test_answers_that_are_sent_again_lease_no_further_job(database: Database, queue: Queue) -> None:
    """The completion is written and has leased a job; the failure in its batch is not, so both are sent again."""
    await queue.connection.execute(FAILS_LATER)
    running = most = 0
    release = asyncio.Event()

    async def works(job: Job) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if job.args["does"] == "wait":
            await release.wait()
        running -= 1
        if job.args["does"] == "fail":
            raise JobFailed("no")

    jobs = [await queue.put_one({"type": "own", "args": {"does": does}}) for does in ("fail", "end", *["wait"] * 6)]
    async with doing(database, works, concurrency=2):
        await queue.until(jobs[0], "failed")
        release.set()
    assert most <= 2
