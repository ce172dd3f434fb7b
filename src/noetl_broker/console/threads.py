"""Runs what computes much, such as a replay, in threads of its own: the event loop serves other requests meanwhile."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from http import HTTPStatus
from typing import Any, TypeVar

from noetl_broker.console.connections import Connections
from noetl_broker.console.problem import RETRY_SECONDS, Refusal
from noetl_broker.store.connect.connection import CLOSE_SECONDS
from noetl_broker.store.connect.dsn import Database

WAIT_SECONDS = 5.0  # for a free thread; then a request gets 503
# A thread that computes gives way after so long. The usual 5 ms may pass before each message of a stream.
SWITCH_SECONDS = 0.0005
Result = TypeVar("Result")
Work = Callable[[Any], Awaitable[Result]]  # takes what `Connections.borrow` gives


class Threads:
    """At most `size` threads, each with an event loop and one connection; `seconds`: that one request may take.

    They take no connection of other requests, and start at the first use.
    """

    def __init__(self, database: Database, *, size: int, seconds: float, wait_seconds: float = WAIT_SECONDS) -> None:
        self._seconds = seconds
        self._wait_seconds = wait_seconds
        self._free: asyncio.LifoQueue[_Thread] = asyncio.LifoQueue()
        self._all = [_Thread(database, seconds) for _ in range(size)]
        for thread in self._all:
            self._free.put_nowait(thread)

    async def run(self, work: Work[Result]) -> Result:
        """The result of `work` on a connection. Raises what `work` raises, and Refusal (503) if that takes too long.

        `work` may use nothing of the event loop of the caller.
        """
        try:
            async with asyncio.timeout(self._wait_seconds):
                thread = await self._free.get()
        except TimeoutError:
            raise _busy(f"{len(self._all)} requests that compute much run already") from None
        running = asyncio.wrap_future(thread.submit(work, self._seconds))
        running.add_done_callback(lambda done: self._end(thread, done))
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(running)  # the thread is free when the work has ended, not before
        except TimeoutError:
            raise _busy(f"the request takes more than {self._seconds:.0f} s: ask for less") from None

    async def close(self) -> None:
        """End the work that runs, and the threads. A thread that still computes ends with the process."""
        await asyncio.gather(*(thread.close() for thread in self._all))

    def _end(self, thread: _Thread, done: asyncio.Future[Result]) -> None:
        if not done.cancelled():
            done.exception()  # nobody may be left who asks for it
        self._free.put_nowait(thread)


class _Thread:
    """One thread with its event loop and its connection."""

    def __init__(self, database: Database, seconds: float) -> None:
        # A replay reads in one transaction, which the console cuts after `seconds`: the server must not do it before.
        self._connections = Connections(database, size=1, transaction_seconds=seconds + CLOSE_SECONDS)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def submit(self, work: Work[Result], seconds: float) -> Future[Result]:
        """Begin the work."""
        if self._loop is None:
            sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="console work", daemon=True)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._run(work, seconds), self._loop)

    async def close(self) -> None:
        """End the thread."""
        if self._loop is None or self._thread is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._clear(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    async def _run(self, work: Work[Result], seconds: float) -> Result:
        async with self._connections.borrow(seconds) as connection:
            return await work(connection)

    async def _clear(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._connections.close()


def _busy(reason: str) -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, reason, {"Retry-After": str(RETRY_SECONDS)})
