"""Histories that are read one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from noetl_broker.store.admin.history_scan import prefetch


async def test_a_scan_that_is_left_early_closes_its_source() -> None:
    """The next item is being fetched meanwhile; the source ends before the scan does."""
    fetching, closed = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
            fetching.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    items = prefetch(source())
    assert await anext(items) == 1
    await fetching.wait()
    await items.aclose()
    assert closed.is_set()
