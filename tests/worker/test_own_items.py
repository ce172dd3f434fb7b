"""A worker of functions: an item of a loop, or a job, that is cancelled from within or gives what nobody can store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from noetl_broker import Job
from tests.postgres import Database
from tests.worker.test_own import awaits_the_cancelled, doing
from tests.worker.test_pool import Queue, queue

__all__ = ["queue"]


async def cancels_itself(_job: Job) -> None:
    """Cancel the task in which it is called."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


@pytest.mark.parametrize("function", [awaits_the_cancelled, cancels_itself])
async def test_a_cancelled_item_is_a_failed_one(
    database: Database, queue: Queue, function: Callable[[Job], Awaitable[None]]
) -> None:
    """The loop does not succeed without it and those behind it."""

    async def doubles(job: Job) -> int:
        if job.args["n"] == 2:
            await function(job)
        return int(job.args["n"]) * 2

    loop = {"collection": [1, 2, 3, 4], "element": "n"}
    async with doing(database, doubles):
        queue_id = await queue.put_one({"type": "own", "args": {"n": "{{ n }}"}, "loop": loop})
        assert await queue.until(queue_id, "failed", "done") == "failed"
    [(_, _, error)] = await queue.events(queue_id)
    assert error["type"] == "CancelledError"


async def test_a_cancelled_item_leaves_a_hole_in_a_loop_that_goes_on(database: Database, queue: Queue) -> None:
    """Those behind it are run."""

    async def doubles(job: Job) -> int:
        if job.args["n"] == 2:
            await awaits_the_cancelled(job)
        return int(job.args["n"]) * 2

    loop = {"collection": [1, 2, 3, 4], "element": "n", "on_error": "continue"}
    async with doing(database, doubles):
        queue_id = await queue.put_one({"type": "own", "args": {"n": "{{ n }}"}, "loop": loop})
        assert await queue.until(queue_id, "failed", "done") == "done"
    [(_, result, _)] = await queue.events(queue_id)
    assert result["data"] == [2, None, 6, 8]
    assert [(one["index"], one["error"]["type"]) for one in result["meta"]["failed"]] == [(1, "CancelledError")]


async def cancels_itself_and_returns(_job: Job) -> None:
    """Cancel the task, which it would notice where it waits next."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize("function", [cancels_itself, cancels_itself_and_returns])
async def test_a_function_that_cancels_its_own_task_fails_the_job(
    database: Database, queue: Queue, function: Callable[[Job], Awaitable[None]]
) -> None:
    """The answer does not wait until the lease runs out, and the worker goes on."""

    async def cancels(job: Job) -> None:
        if job.args:
            await function(job)

    async with doing(database, cancels):
        queue_id = await queue.put_one({"type": "own", "args": {"a": 1}})
        assert await queue.until(queue_id, "failed", "done") == "failed"
        await queue.until(await queue.put_one({"type": "own"}), "done")
    [(_, _, error)] = await queue.events(queue_id)
    assert (error["type"], error["message"]) == ("CancelledError", "the task cancelled itself")


@pytest.mark.parametrize("result", ["a\x00b", "\ud800", float("nan"), object(), "x" * 2_100_000])
async def test_an_item_whose_result_cannot_be_stored_is_a_failed_one(
    database: Database, queue: Queue, result: object
) -> None:
    """It leaves a hole in a loop that goes on; in another, the error says which it is."""

    async def gives(job: Job) -> object:
        return result if job.args["n"] == 2 else job.args["n"]

    loop = {"collection": [1, 2, 3], "element": "n"}
    job = {"type": "own", "args": {"n": "{{ n }}"}}
    async with doing(database, gives):
        going_on = await queue.put_one({**job, "loop": {**loop, "on_error": "continue"}})
        assert await queue.until(going_on, "failed", "done") == "done"
        ending = await queue.put_one({**job, "loop": loop})
        assert await queue.until(ending, "failed", "done") == "failed"
    [(_, results, _)] = await queue.events(going_on)
    [(_, _, error)] = await queue.events(ending)
    assert results["data"] == [1, None, 3]
    assert [one["index"] for one in results["meta"]["failed"]] == [1]
    assert (error["index"], error["type"]) == (1, "max_result_bytes" if len(str(result)) > 1000 else "bad_result")
