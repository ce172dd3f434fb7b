"""The counts beside the navigation: what needs a person, and what Health found last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from noetl_broker.console.changes import attention_of
from noetl_broker.console.services import Services
from noetl_broker.errors import BrokerError
from noetl_broker.store.admin.changes import Attention
from noetl_broker.store.admin.doctor_of_buckets import examine_all
from noetl_broker.store.admin.overview import MOST_COUNTED
from noetl_broker.store.connect.dsn import Database

MOST_SECONDS: Final = 1.0  # that a page waits for its counts
EXAMINED_SECONDS: Final = 60.0  # between two examinations of the database
FIRST_SECONDS: Final = 5.0  # from the start of the console to the first
# The section's address, what is counted of the present, and the class of the count's colour.
COUNTED: Final = (("/approvals", "approvals", "run"), ("/dead-letters", "dead_letters", "bad"))
Counts = Mapping[str, tuple[str, str]]  # the text and the colour of a count, by the address of its section


async def count_for_navigation(services: Services) -> Counts:
    """Each count of what needs a person that is not 0.

    While streams are open, these counts are a second old at most. While the database is away, there are none.
    """
    found = services.changes.attention or Attention(0, 0)
    if services.changes.attention is None:
        with suppress(BrokerError):
            async with services.connections.borrow(MOST_SECONDS) as connection:
                found = await attention_of(connection)
    counts = found._asdict()
    return {
        url: (f"{counts[name]:,}{'+' if counts[name] >= MOST_COUNTED else ''}", tone)
        for url, name, tone in COUNTED
        if counts[name]
    }


class Examinations:
    """What an examination of the database found last; a page that finds it old starts a new one, and does not wait."""

    def __init__(self, database: Database) -> None:
        """Wait a little before the first."""
        self._database = database
        self._counts: Counts = {}
        self._examined_at = time.monotonic() - EXAMINED_SECONDS + FIRST_SECONDS
        self._task: asyncio.Task[None] | None = None

    def counts(self) -> Counts:
        """The number of problems, or, without any, of notices."""
        if time.monotonic() - self._examined_at >= EXAMINED_SECONDS and (self._task is None or self._task.done()):
            self._examined_at = time.monotonic()
            self._task = asyncio.create_task(self._examine(), name="examination for the navigation")
        return self._counts

    def note(self, problems: int, notices: int) -> None:
        """Keep what an examination found."""
        self._examined_at = time.monotonic()
        counts = ((problems, "bad"), (notices, "warn"))
        self._counts = next(({"/health": (f"{count:,}", tone)} for count, tone in counts if count), {})

    async def close(self) -> None:
        """End an examination that is under way."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _examine(self) -> None:
        with suppress(BrokerError):
            states = [finding.state for finding in await examine_all(self._database)]
            self.note(states.count("problem"), states.count("notice"))
