"""The counts beside the navigation: what needs a person, and what Health finds. No page waits for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

from noetl_broker.console.changes import Changes
from noetl_broker.console.connections import Connections
from noetl_broker.errors import BrokerError
from noetl_broker.store.admin.changes import Attention, count_attention
from noetl_broker.store.admin.doctor import examine
from noetl_broker.store.admin.doctor_checks import DoctorFinding
from noetl_broker.store.admin.overview import MOST_COUNTED

KEPT_SECONDS: Final = 5.0
EXAMINED_SECONDS: Final = 60.0  # between two examinations of the database
FIRST_SECONDS: Final = 5.0  # from the start of the console to the first
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
        self._found: Mapping[str, tuple[str, str]] = {}
        self._examined_at = time.monotonic() - EXAMINED_SECONDS + FIRST_SECONDS
        self._examination: asyncio.Task[None] | None = None

    def counts(self) -> Mapping[str, tuple[str, str]]:
        """The text and the colour of each count that is not 0."""
        now = time.monotonic()
        if now - self._examined_at >= EXAMINED_SECONDS and (self._examination is None or self._examination.done()):
            self._examined_at = now
            self._examination = asyncio.create_task(self._examine(), name="examination for the navigation")
        told = self._changes.attention if self._changes is not None else None
        if told is not None:  # streams are open: the counts are a second old at most
            return {**_shown(told), **self._found}
        if now - self._read_at >= KEPT_SECONDS and (self._task is None or self._task.done()):
            self._read_at = now
            self._task = asyncio.create_task(self._read(), name="counts of the navigation")
        return {**self._counts, **self._found}

    async def close(self) -> None:
        """End the reads that are under way."""
        for task in (self._task, self._examination):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    def note(self, findings: Iterable[DoctorFinding]) -> None:
        """Count what an examination found: its problems, or, without any, its notices."""
        self._examined_at = time.monotonic()
        states = [finding.state for finding in findings]
        counts = ((states.count("problem"), "bad"), (states.count("notice"), "warn"))
        self._found = next(({"/health": (f"{count:,}", tone)} for count, tone in counts if count), {})

    async def _examine(self) -> None:
        with suppress(BrokerError):
            self.note(await examine(self._connections.database))

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
