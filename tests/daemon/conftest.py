"""Fixtures of the daemon's tests; the tests of a file share a database, unless they have the mark `own_database`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kept_database import keeper, kept_database, use_loop_of_file
from tests.noetl import (
    NoETL,
    open_noetl,
)
from tests.postgres import Database

__all__ = ["keeper", "kept_database"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the asynchronous tests of a file one event loop."""
    use_loop_of_file(items, Path(__file__).parent)


@pytest.fixture
async def noetl(noetl_database: Database) -> AsyncIterator[NoETL]:
    """Give a NoETL server and its worker on their own migrated database."""
    both = await open_noetl(noetl_database)
    try:
        yield both
    finally:
        await both.connection.close()
