"""What several tests of the daemon ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.noetl import (
    NoETL,
    open_noetl,
)
from tests.postgres import Database


@pytest.fixture
async def noetl(empty_database: Database) -> AsyncIterator[NoETL]:
    """That server and its worker, on a database of theirs that was migrated."""
    both = await open_noetl(empty_database)
    try:
        yield both
    finally:
        await both.connection.close()
