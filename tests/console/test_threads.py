"""Requests that compute much, or that hold a connection: the others go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from noetl_broker.console.app import ConsoleOptions, create_app
from noetl_broker.console.connections import CONNECTIONS
from noetl_broker.console.problem import Refusal
from noetl_broker.console.threads import Threads
from noetl_broker.errors import BrokerError
from noetl_broker.store.connect.connection import Connection
from tests.brokers import PATIENCE_SECONDS
from tests.console.conftest import served
from tests.postgres import Database


class Computing:
    """Work that keeps its thread busy until it may end."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    async def __call__(self, connection: Connection) -> Any:
        """Return a value of the database."""
        self.begun.set()
        assert self.may_end.wait(PATIENCE_SECONDS)
        return await connection.fetchval("select 7")


@asynccontextmanager
async def threads(database: Database, seconds: float = PATIENCE_SECONDS) -> AsyncIterator[Threads]:
    """One thread, for which nobody waits."""
    made = Threads(database, size=1, seconds=seconds, wait_seconds=0.0)
    try:
        yield made
    finally:
        await made.close()


async def until_connected(made: Threads) -> None:
    """Return when the thread has its connection: on a busy machine that may take longer than a request may."""
    while True:
        with suppress(Refusal, BrokerError):
            await made.run(lambda connection: connection.fetchval("select 7"))
            return


async def test_a_request_beyond_the_threads_is_told_to_come_again(database: Database) -> None:
    """The event loop goes on while the first request computes. Then there is a thread again."""
    work = Computing()
    async with threads(database) as made:
        answer = asyncio.ensure_future(made.run(work))
        await asyncio.to_thread(work.begun.wait, PATIENCE_SECONDS)
        with pytest.raises(Refusal) as refused:
            await made.run(work)
        work.may_end.set()
        assert await answer == 7
        assert await made.run(work) == 7
        assert refused.value.status == 503
        assert refused.value.headers == {"Retry-After": "2"}


async def test_a_request_that_computes_too_long_is_refused(database: Database) -> None:
    """Its thread is free once the work has ended, not before."""
    work = Computing()
    async with threads(database, seconds=0.5) as made:
        await until_connected(made)
        with pytest.raises(Refusal, match="takes more than"):
            await made.run(work)
        with pytest.raises(Refusal, match="run already"):
            await made.run(work)
        work.may_end.set()


async def test_the_server_cuts_no_transaction_before_the_console(database: Database) -> None:
    """A replay of many turns reads in one transaction."""
    async with threads(database, seconds=60.0) as made:
        limit = await made.run(
            lambda connection: connection.fetchval("select current_setting('transaction_timeout', true)")
        )
    assert limit in {"62s", None}  # None: PostgreSQL before 17 has no such limit


async def test_health_and_tokens_answer_while_requests_hold_all_connections(database: Database) -> None:
    """And what computes much has its own ones."""
    urls = ("/health", "/me", "/playbooks/graph?path=no")
    app = create_app(ConsoleOptions(database=database))
    async with served(app) as client, AsyncExitStack() as held:
        for url in urls:
            await client.get(f"/api/v1{url}")  # what they connect at their first use: a loan ends after ten seconds
        connections = app.state.services.connections
        for _ in range(CONNECTIONS):
            await held.enter_async_context(connections.borrow())
        statuses = [(await client.get(f"/api/v1{url}")).status_code for url in urls]
    assert statuses == [200, 200, 404]
