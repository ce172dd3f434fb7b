"""A worker of functions: items and jobs that cancel themselves, or whose results cannot be stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from noetl_broker import Job
from tests.postgres import Database
from tests.worker.test_loop import Queue, queue
from tests.worker.test_sdk import awaits_the_cancelled, doing

__all__ = ["queue"]


async def cancels_itself(_job: Job) -> None:
    """Cancel the task in which it is called."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


@pytest.mark.parametrize("function", [awaits_the_cancelled, cancels_itself])
async def test_an_item_that_cancels_itself_fails_its_iterator(
    database: Database, queue: Queue, function: Callable[[Job], Awaitable[None]]
) -> None:
    """The loop does not succeed without it and the later items."""

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


async def test_an_item_that_cancels_itself_is_null_with_on_error_continue(database: Database, queue: Queue) -> None:
    """The items after it run."""

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
    """Cancel the task, which would notice it at its next await."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize("function", [cancels_itself, cancels_itself_and_returns])
async def test_a_function_that_cancels_its_own_task_fails_the_job(
    database: Database, queue: Queue, function: Callable[[Job], Awaitable[None]]
) -> None:
    """At once, and not when its lease expires."""

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
async def test_an_item_with_a_result_that_cannot_be_stored_fails(
    database: Database, queue: Queue, result: object
) -> None:
    """With `on_error: continue` it is null; otherwise the error has its index."""

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
