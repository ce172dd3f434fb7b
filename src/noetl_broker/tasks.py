"""Tasks of asyncio: wait for the first of several, or run one until an event, several, or one beside others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, for at most so many seconds.

    `asyncio.wait_for` of Python 3.11 loses a cancel that comes when the event is set.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def first(*waits: Coroutine[Any, Any, Any], timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio.wait's
    """Wait for the first of these or the timeout, and cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def run_all(*works: Coroutine[Any, Any, None]) -> None:
    """Run these beside each other. Raises the first fault, after the others are cancelled and have ended."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_until(stop: asyncio.Event, work: Coroutine[Any, Any, None], *, grace: float) -> None:
    """Await the work; once `stop` is set it has `grace` seconds, and is cancelled then."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([task], timeout=grace)
    finally:
        stopped.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def run_beside(background: list[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Await the work while the background tasks run. A task that ends before the work ends it with an error."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task, *background], return_when=asyncio.FIRST_COMPLETED)
        finished = task.done()
    finally:
        task.cancel()
    for ended in (task, *background):
        if ended.done() and not ended.cancelled():
            ended.result()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    if not finished:
        gone = next(ended for ended in background if ended.done())
        raise RuntimeError(f"{gone.get_name()} ended before the work")
