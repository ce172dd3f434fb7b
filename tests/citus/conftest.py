"""A new installation on a cluster of Citus for each test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from tests.citus.clusters import VARIABLE, Cluster, installed


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Yield it, or skip."""
    dsn = os.environ.get(VARIABLE)
    if not dsn:
        pytest.skip(f"set {VARIABLE} to the DSN of a database on the coordinator of a Citus cluster with two nodes")
    async with installed(dsn) as cluster:
        yield cluster
