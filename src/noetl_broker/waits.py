"""Waiting: for the first of several events, and longer before each further attempt."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

RETRY_SECONDS = (0.1, 1.0)  # before a worker tries again to reach a database that is away
JITTER = 0.25  # of the pauses of a worker


@dataclass(slots=True)
class Backoff:
    """Growing pauses in seconds, from `least` to `most`: twice the last one, less a random part (`jitter`)."""

    least: float
    most: float
    jitter: float = 0.0
    pause: float = 0.0  # the last one, without jitter

    def next(self) -> float:
        """The pause before the next attempt."""
        self.pause = min(max(self.pause * 2, self.least), self.most)
        return jittered(self.pause, self.jitter) if self.jitter else self.pause

    def reset(self) -> None:
        """Begin again with `least`."""
        self.pause = 0.0


def jittered(seconds: float, jitter: float) -> float:
    """These seconds less a random part of at most `jitter`, so that several do not try at once."""
    return seconds * random.uniform(1.0 - jitter, 1.0)  # noqa: S311 - jitter is no secret


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
