"""Answers of the database that many open pages share: when something changes, all of them ask the same at once."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Any, Final

KEPT_SECONDS: Final = 1.0
MOST_KEPT: Final = 200


class SharedReads:
    """Reads by key; one is asked once at a time, and its answer holds for a second after it began.

    A fresh read replaces what is shared, so that nobody who has it gets an older answer afterwards.
    """

    def __init__(self) -> None:
        self._reads: OrderedDict[Hashable, tuple[float, asyncio.Future[Any]]] = OrderedDict()

    async def get(self, key: Hashable, load: Callable[[], Awaitable[Any]], *, fresh: bool = False) -> Any:
        """The answer of `load`; unless `fresh`, of another read with this key that began within the last second."""
        began, found = self._reads.get(key, (0.0, None))
        if fresh or found is None or found.cancelled() or (found.done() and time.monotonic() - began > KEPT_SECONDS):
            found = asyncio.ensure_future(load())
            found.add_done_callback(partial(self._keep_briefly, key))
            self._reads[key] = time.monotonic(), found
            self._reads.move_to_end(key)
            if len(self._reads) > MOST_KEPT:
                self._reads.popitem(last=False)
        return await asyncio.shield(found)

    def _keep_briefly(self, key: Hashable, found: asyncio.Future[Any]) -> None:
        if not found.cancelled():
            found.exception()  # nobody may be left who asks for it
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget, key, found)

    def _forget(self, key: Hashable, found: asyncio.Future[Any]) -> None:
        if self._reads.get(key, (0.0, None))[1] is found:
            del self._reads[key]
