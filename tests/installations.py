"""A daemon for all buckets of an installation, and playbooks in them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from noetl_broker.daemon.databases import Databases
from noetl_broker.daemon.service import Service
from noetl_broker.store.connect.buckets import buckets_of
from tests.brokers import PATIENCE_SECONDS, options, register
from tests.postgres import Database

COUNT = 4  # buckets of the fixture


def services_of(installation: Database, count: int = COUNT, **changes: object) -> Databases:
    """Return a daemon for all buckets, as `run` makes it."""
    stopping = asyncio.Event()
    services = {
        str(number): Service(replace(options(one, **changes), lanes=1), stopping)
        for number, one in enumerate(buckets_of(installation, count))
    }
    return Databases(services, stopping)


@asynccontextmanager
async def serving(installation: Database, count: int = COUNT, **changes: object) -> AsyncIterator[Databases]:
    """Run a daemon for all buckets until the block ends."""
    databases = services_of(installation, count, **changes)
    ready = asyncio.Event()
    databases.on_ready = ready.set
    task = asyncio.create_task(databases.run())
    await asyncio.wait_for(ready.wait(), PATIENCE_SECONDS)
    try:
        yield databases
    finally:
        databases.stopping.set()
        await asyncio.wait_for(task, PATIENCE_SECONDS)


async def register_everywhere(installation: Database, body: str, count: int = COUNT) -> None:
    """Register a playbook in each bucket, as `register` does."""
    for one in buckets_of(installation, count):
        await register(one, body)
