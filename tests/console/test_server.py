"""The socket that the console listens on, and what a connection to it may cost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
from structlog.testing import capture_logs

from noetl_broker.console.app import ConsoleOptions, create_app
from noetl_broker.console.pages.assets import folder
from noetl_broker.console.protocol import ConnectionLimits
from noetl_broker.console.server import open_socket, serving, url_of
from tests.brokers import PATIENCE_SECONDS
from tests.postgres import Database

HEALTH = "/api/v1/health"
SHORT = ConnectionLimits(head_seconds=0.2, body_seconds=0.2, idle_seconds=1, stalled_seconds=0.2)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def test_answers_are_sent_at_once() -> None:
    """Where the protocol is not named, asyncio leaves Nagle's algorithm on, and each answer waits 40 ms."""
    with open_socket("127.0.0.1", 0) as opened:
        assert opened.proto == socket.IPPROTO_TCP


@asynccontextmanager
async def limited(database: Database, limits: ConnectionLimits) -> AsyncIterator[str]:
    """Serve the console with other limits, and yield its address."""
    opened = open_socket("127.0.0.1", 0)
    async with serving(create_app(ConsoleOptions(database=database)), opened, limits):
        yield url_of(opened)


async def connect(url: str, sent: bytes = b"", source: str = "127.0.0.1") -> Streams:
    """Open a connection and send something; the reader holds little."""
    address = httpx.URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port, local_addr=(source, 0), limit=1)
    writer.write(sent)
    return reader, writer


async def get(url: str, path: str = HEALTH, source: str = "127.0.0.1") -> int:
    """The status of an answer over a new connection."""
    transport = httpx.AsyncHTTPTransport(local_address=source)
    async with httpx.AsyncClient(base_url=url, transport=transport, timeout=PATIENCE_SECONDS) as client:
        return (await client.get(path)).status_code


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Read to the end of a connection; false if it has none."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await reader.read(1 << 16):
                pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


HEAD = b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "sent, dripped",
    [
        (b"", b""),
        (HEAD, b""),
        (HEAD, b"x: y\r\n"),
        (HEAD + b"Content-Length: 60000\r\n\r\n", b"x"),
        (HEAD + b"Content-Length: 60000\r\nContent-Type: text/plain\r\n\r\n", b"x"),
        (b"GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
        (b"GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\n\r\nGET", b""),
    ],
)
async def test_a_connection_that_sends_no_more_is_closed(database: Database, sent: bytes, dripped: bytes) -> None:
    """A little now and then does not help."""
    async with limited(database, SHORT) as url:
        reader, writer = await connect(url, sent)

        async def drip() -> None:
            while dripped:
                writer.write(dripped)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(writer.wait_closed(), 0.01)

        dripping = asyncio.create_task(drip())
        assert await is_closed(reader)
        dripping.cancel()
        writer.transport.abort()


async def test_a_client_that_hangs_up_leaves_no_error_line(database: Database) -> None:
    """In the middle of a form, of JSON, of a stream, and before a page is there."""
    requests = (
        HEAD + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\nx",
        b"POST /api/v1/executions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx",
        b"GET /api/v1/changes HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    async with limited(database, ConnectionLimits()) as url, AsyncExitStack() as stack:
        logged = stack.enter_context(capture_logs())
        for sent in requests:
            _, writer = await connect(url, sent)
            assert await get(url) == 200
            writer.transport.abort()
            assert await get(url) == 200
    assert logged == []


async def test_who_does_not_read_its_answers_is_closed(database: Database) -> None:
    """It would keep them in memory for as long as it stays."""
    wanted = f"GET {folder()}/icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with limited(database, SHORT) as url:
        _, writer = await connect(url, wanted * 100_000)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(writer.wait_closed(), PATIENCE_SECONDS)


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"Content-Length: 9\r\n\r\n"])
async def test_the_oldest_idle_connection_makes_room(database: Database, sent: bytes) -> None:
    """So those that only stay take nobody's place."""
    limits = ConnectionLimits(connections=3)
    async with limited(database, limits) as url:
        idle = [await connect(url, sent) for _ in range(limits.connections)]
        statuses = [await get(url) for _ in range(2)]
        assert (statuses, await is_closed(idle[0][0])) == ([200, 200], True)
        for _, writer in idle:
            writer.transport.abort()


async def test_one_address_cannot_take_every_place(database: Database) -> None:
    """Its next request gets 503; another address is served."""
    limits = ConnectionLimits(connections=9, connections_of_address=2)
    async with limited(database, limits) as url, AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS))
        for _ in range(limits.connections_of_address):
            stream = await stack.enter_async_context(client.stream("GET", "/api/v1/changes"))
            assert stream.status_code == 200
        statuses = [await get(url), await get(url, source="127.0.0.2")]
        assert statuses == [503, 200]
