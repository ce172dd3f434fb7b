"""The database goes away while the console serves, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from noetl_broker import embedded_postgres
from noetl_broker.embedded_postgres import EmbeddedPostgres
from noetl_broker.store.connect.migrations import migrate
from tests.brokers import PATIENCE_SECONDS, drain, register, start
from tests.console.conftest import console
from tests.console.test_changes import events
from tests.console.test_executions import STORY
from tests.postgres import Database

URLS = ("/api/v1/executions", "/api/v1/health", "/api/v1/playbooks/graph?path=story")


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """Yield a Postgres that the test may stop."""
    with embedded_postgres.start(settings={"fsync": "off"}) as postgres:
        yield postgres


async def statuses(client: httpx.AsyncClient) -> list[int]:
    """The statuses of requests: of the list, of the health, and of one that computes much."""
    return [(await client.get(url)).status_code for url in URLS]


async def test_the_console_and_its_streams_go_on_after_an_outage(server: EmbeddedPostgres) -> None:
    """Meanwhile requests get 503."""
    database = Database(name="postgres", dsn=server.dsn())
    await migrate(database)
    await register(database, STORY)
    [execution_id] = await start(database, payload={"x": 1})
    async with console(database) as client:
        stream = events(client, execution_id=execution_id)
        first = await anext(stream)
        found = [await statuses(client)]
        await asyncio.to_thread(server.stop, "immediate")
        found.append(await statuses(client))
        await asyncio.to_thread(server.launch)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (after := await statuses(client)) != [200] * 3:
                assert set(after) <= {200, 503}
        await drain(database)
        last = await anext(stream)
        await stream.aclose()
    assert (found, first[0]["status"], last[0]["status"]) == ([[200] * 3, [503] * 3], "RUNNING", "COMPLETED")
