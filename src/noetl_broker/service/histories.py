"""The histories that a replay reads, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin import history_scan as store
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.admin.history import Versions
from noetl_broker.store.admin.history_scan import HistoryPart, count_histories
from noetl_broker.store.connect.connection import Connection

__all__ = ["HistoryPart", "Pace", "count_histories", "read_histories"]

PARTS_BETWEEN_CHECKS = 8  # at the network, where the next batch is coming


class Pace:
    """How many executions were read, and how many in a second."""

    def __init__(self) -> None:
        self.executions = 0
        self._began = time.monotonic()

    @property
    def per_second(self) -> float:
        """Executions in a second."""
        return self.executions / max(time.monotonic() - self._began, 1e-6)


async def read_histories(
    connection: Connection, which: Filter | Sequence[int], rules: PlaybookRules
) -> AsyncGenerator[store.HistoryPart, None]:
    """Yield the histories of these executions, each whole or in parts; the next ones load meanwhile."""
    async with aclosing(store.prefetch(_load(connection, which, rules))) as batches:
        async for parts in batches:
            for index, part in enumerate(parts):
                yield part
                if index % PARTS_BETWEEN_CHECKS == 0:
                    await asyncio.sleep(0)


async def _load(
    connection: Connection, which: Filter | Sequence[int], rules: PlaybookRules
) -> AsyncGenerator[Iterable[store.HistoryPart], None]:
    versions = Versions(rules)
    batches = (
        store.measure_sizes(connection, which)
        if isinstance(which, Filter)
        else store.measure_sizes_of(connection, which)
    )
    async for batch in batches:
        async with aclosing(store.read(connection, batch, versions)) as loaded:
            async for parts in loaded:
                yield parts
