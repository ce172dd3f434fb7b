"""Waiting: for the first of several things, and ever longer before another try."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

# Between two tries to reach a database that is away: as long as anything waits, nobody waits much longer than it.
RETRY_SECONDS = (0.1, 1.0)


@dataclass(slots=True, kw_only=True)
class Backoff:
    """The next pause in seconds, from `least` to `most`: twice the last, scattered to keep workers out of step."""

    least: float
    most: float
    pause: float = 0.0

    def next(self) -> float:
        """Give the pause before the next try."""
        self.pause = min(max(self.pause * 2, self.least), self.most)
        return self.pause * random.uniform(0.75, 1.0)  # noqa: S311 - scatter, not a secret

    def reset(self) -> None:
        """Begin again at the least."""
        self.pause = 0.0


async def first(*waits: Coroutine[Any, Any, Any], timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio.wait's
    """Wait for the first of these, or the time, and cancel the rest."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def in_time(work: Coroutine[Any, Any, None], stop: asyncio.Event, *, grace: float) -> None:
    """Do the work; once `stop` is set it has `grace` seconds to end, and is cancelled then."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([task], timeout=grace)
    finally:
        stopped.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def beside(work: Coroutine[Any, Any, None], keepers: list[asyncio.Task[None]]) -> None:
    """Do the work as long as the keepers live; a keeper that dies (of a fault of ours) ends it with its error."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task, *keepers], return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
    for ended in (task, *keepers):
        if ended.done() and not ended.cancelled():
            ended.result()
    with contextlib.suppress(asyncio.CancelledError):
        await task
