"""Histories that are read one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.admin.history_scan import measure_sizes, measure_sizes_of, prefetch
from tests.brokers import drain, register, start
from tests.postgres import Database
from tests.sessions import session


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


async def test_an_execution_has_the_same_size_in_a_page_and_alone(database: Database) -> None:
    """By its size, a history is loaded in parts."""
    await register(database, "workflow: [{step: start, type: python, code: x}]")
    ids = [*await start(database), *await start(database, payload={"x": "x" * 900})]
    await drain(database)
    async with session(database) as own:
        [page] = [batch async for batch in measure_sizes(own, Filter())]
        alone = [size async for batch in measure_sizes_of(own, ids) for size in batch]
    assert page == alone
    assert page[0].bytes < page[1].bytes
