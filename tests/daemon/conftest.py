"""Fixtures of the daemon's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.noetl import (
    NoETL,
    open_noetl,
)
from tests.postgres import Database


@pytest.fixture
async def noetl(noetl_database: Database) -> AsyncIterator[NoETL]:
    """Give a NoETL server and its worker on their own migrated database."""
    both = await open_noetl(noetl_database)
    try:
        yield both
    finally:
        await both.connection.close()
