"""The counts beside the navigation: what needs a person. No page waits for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from noetl_broker.console.changes import Changes
from noetl_broker.console.connections import Connections
from noetl_broker.errors import BrokerError
from noetl_broker.store.admin.changes import Attention, count_attention
from noetl_broker.store.admin.overview import MOST_COUNTED

KEPT_SECONDS: Final = 5.0
# The section's address, what is counted of the present, and the class of the count's colour.
COUNTED: Final = (("/approvals", "approvals", "run"), ("/dead-letters", "dead_letters", "bad"))


class AttentionCache:
    """Counts by the address of a section; a page that finds old counts shows them, and starts a new read."""

    def __init__(self, connections: Connections, changes: Changes | None = None) -> None:
        self._connections = connections
        self._changes = changes
        self._counts: Mapping[str, tuple[str, str]] = {}
        self._read_at = -KEPT_SECONDS
        self._task: asyncio.Task[None] | None = None

    def counts(self) -> Mapping[str, tuple[str, str]]:
        """The text and the colour of each count that is not 0."""
        told = self._changes.attention if self._changes is not None else None
        if told is not None:  # streams are open: the counts are a second old at most
            return _shown(told)
        now = time.monotonic()
        if now - self._read_at >= KEPT_SECONDS and (self._task is None or self._task.done()):
            self._read_at = now
            self._task = asyncio.create_task(self._read(), name="counts of the navigation")
        return self._counts

    async def close(self) -> None:
        """End a read that is under way."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _read(self) -> None:
        with suppress(BrokerError):
            async with self._connections.borrow() as connection:
                self._counts = _shown(await count_attention(connection))


def _shown(found: Attention) -> Mapping[str, tuple[str, str]]:
    """The text and the colour of each count that is not 0, by the address of its section."""
    counts = found._asdict()
    return {
        url: (f"{counts[name]:,}{'+' if counts[name] >= MOST_COUNTED else ''}", tone)
        for url, name, tone in COUNTED
        if counts[name]
    }
