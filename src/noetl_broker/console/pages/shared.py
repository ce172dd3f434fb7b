"""Answers that many readers share: open pages all ask the same at once when something changes.

| who asks | gets |
|---|---|
| a person | an answer that was begun after it was asked for: what the person just did is in it |
| the script of an open page | an answer that may be a second old, or older in proportion to what it cost |

What scripts ask takes the database a bounded share of its time together, however many pages are open.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Any, Final

from noetl_broker.console.meter import measured

KEPT_SECONDS: Final = 1.0  # that an answer is kept for scripts, at least
KEPT_SHARE: Final = 0.02  # of the database's time, that one address may take: an expensive answer is kept longer
LONGEST_KEPT: Final = 10.0  # seconds
MOST_KEPT: Final = 200
LIVE_SHARE: Final = 0.06  # of the database's time, that all scripts together may take
SAVED: Final = 0.6  # seconds of the database that they may take at once after a quiet time
FIRST_GUESS: Final = 0.02  # seconds of the database, for an answer that was never made
LONGEST_WAIT: Final = 4.0  # seconds for which a script's request is held back; then it is told to ask again


class TooSoonError(Exception):
    """Scripts have taken their share: ask again after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"ask again after {seconds:.1f} s")
        self.seconds = seconds


class SharedReads:
    """Reads by key, each asked once at a time. An answer holds for a while after its read began.

    A fresh read replaces what is shared, so that nobody who has it gets an older answer afterwards.
    """

    def __init__(self) -> None:
        self._reads: OrderedDict[Hashable, SharedRead] = OrderedDict()

    async def get(self, key: Hashable, load: Callable[[], Awaitable[Any]], *, fresh: bool = False) -> Any:
        """The result of `load`, or of another read with this key. If `fresh`, that read begins from now on."""
        asked = time.monotonic()
        while True:
            read = self._reads.get(key)
            if read is None or not read.holds(fresh=fresh, asked=asked):
                if fresh and read is not None and not read.future.done():
                    await asyncio.wait([read.future])  # then all who wait share the next
                    continue
                read = self._begin(key, load)
            return await asyncio.shield(read.future)

    def drop(self, key: Hashable) -> None:
        """Let nobody get an answer that was begun before."""
        self._reads.pop(key, None)

    def _begin(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> SharedRead:
        read = self._reads[key] = SharedRead(load)
        self._reads.move_to_end(key)
        read.future.add_done_callback(partial(self._keep_briefly, key, read))
        if len(self._reads) > MOST_KEPT:
            self._reads.popitem(last=False)
        return read

    def _keep_briefly(self, key: Hashable, read: SharedRead, future: asyncio.Future[Any]) -> None:
        failed = future.cancelled() or future.exception() is not None  # nobody may be left who asks for it
        seconds = 0.0 if failed else max(0.0, read.until - time.monotonic())
        asyncio.get_running_loop().call_later(seconds, self._forget, key, read)

    def _forget(self, key: Hashable, read: SharedRead) -> None:
        if self._reads.get(key) is read:
            del self._reads[key]


class SharedRead:
    """One read under way or ended: when it began, and what it took the database."""

    def __init__(self, load: Callable[[], Awaitable[Any]]) -> None:
        self.began = time.monotonic()
        with measured() as self._meter:
            self.future: asyncio.Future[Any] = asyncio.ensure_future(load())

    @property
    def until(self) -> float:
        """Until when it is kept for scripts."""
        return self.began + max(KEPT_SECONDS, min(LONGEST_KEPT, self._meter.seconds / KEPT_SHARE))

    def holds(self, *, fresh: bool, asked: float) -> bool:
        """Whether who asked then may have its answer."""
        if self.future.cancelled():
            return False
        if fresh:
            return self.began >= asked
        return not self.future.done() or time.monotonic() <= self.until


class ReadAllowance:
    """Lets scripts take the database at most `share` of its time, and `saved` seconds more after a quiet time.

    Each read waits for those before it. It is charged with what the last one of its kind took, and with the difference
    when it has ended.
    """

    def __init__(self, share: float = LIVE_SHARE, *, saved: float = SAVED) -> None:
        self._share, self._saved = share, saved
        self._free_at = 0.0
        self._took: dict[str, float] = {}

    async def run(self, kind: str, load: Callable[[], Awaitable[Any]]) -> Any:
        """The result of `load`, which runs when it is its turn. Raises TooSoonError where that is too far ahead."""
        now = time.monotonic()
        start = max(now, self._free_at)
        if start - now > LONGEST_WAIT:
            raise TooSoonError(start - now)
        guess = self._took.get(kind, FIRST_GUESS)
        self._free_at = max(self._free_at, now - self._saved / self._share) + guess / self._share
        await asyncio.sleep(start - now)
        with measured() as meter:
            try:
                return await load()
            finally:
                await asyncio.sleep(0)  # the driver counts the last statement in the next round of the loop
                if len(self._took) >= MOST_KEPT:
                    self._took.clear()
                self._took[kind] = meter.seconds
                self._free_at += (meter.seconds - guess) / self._share
