"""The HTTP server of the health port: what it serves and refuses, and that no client can block it."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest

from noetl_broker.daemon.http import server as port_module
from noetl_broker.daemon.http.server import Answer, HttpServer
from tests.brokers import PATIENCE_SECONDS
from tests.health_port import request, send


async def _hello() -> Answer:
    return Answer(HTTPStatus.OK, b'{"said": "hello"}')


async def _broken() -> Answer:
    raise RuntimeError("a secret")


@pytest.fixture(autouse=True)
def patient_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the port wait for longer than a test: a busy machine may need longer for a request than a client may."""
    monkeypatch.setattr(port_module, "TIMEOUT_SECONDS", 3600.0)
    monkeypatch.setattr(port_module, "HEAD_TIMEOUT_SECONDS", 3600.0)


@pytest.fixture
async def open_port() -> AsyncIterator[int]:
    """Yield the number of a port with two routes."""
    port = HttpServer({"/hello": _hello, "/broken": _broken})
    yield await port.open("127.0.0.1", 0)
    await port.close()


async def test_a_get_is_answered(open_port: int) -> None:
    """With its length and type; then the connection is closed."""
    heard = await request(open_port, "/hello?verbose=1")
    assert (heard.status, heard.body, heard.headers["Content-Length"]) == (200, '{"said": "hello"}', "17")
    assert (heard.headers["Content-Type"], heard.headers["Connection"]) == ("application/json", "close")


async def test_a_head_is_answered_without_a_body(open_port: int) -> None:
    """With the length of the body."""
    heard = await request(open_port, "/hello", method="HEAD")
    assert (heard.status, heard.body, heard.headers["Content-Length"]) == (200, "", "17")


async def test_an_unknown_path_is_404_and_lists_the_paths(open_port: int) -> None:
    """A mistyped path is easy to correct."""
    heard = await request(open_port, "/")
    assert (heard.status, heard.body) == (404, "404 Not Found; paths: /hello, /broken\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_another_method_is_405(open_port: int, method: str) -> None:
    """The port is read-only."""
    heard = await request(open_port, "/hello", method=method)
    assert (heard.status, heard.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "line", [b"hello", b"GET /hello", b"GET /hello SPDY/3", b"GET  /hello HTTP/1.1", b"\x16\x03\x01\x02\x00"]
)
async def test_data_that_is_no_http_is_400(open_port: int, line: bytes) -> None:
    """Such as a TLS handshake."""
    assert (await send(open_port, line + b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_a_request_head_above_8_kib_is_431(open_port: int) -> None:
    """The rest is not read."""
    request = b"GET /hello HTTP/1.1\r\nX: " + b"x" * port_module.MAX_HEAD_BYTES + b"\r\n\r\n"
    assert (await send(open_port, request)).startswith(b"HTTP/1.1 431 ")


async def test_a_fault_of_a_route_is_500_without_detail(open_port: int) -> None:
    """The log has the traceback."""
    heard = await request(open_port, "/broken")
    assert (heard.status, heard.body) == (500, "500 Internal Server Error\n")


async def test_a_silent_connection_is_closed(open_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the timeout of a request."""
    monkeypatch.setattr(port_module, "TIMEOUT_SECONDS", 0.05)
    assert await send(open_port, b"GET /hello HT") == b""


async def test_an_incomplete_request_head_is_closed(open_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sooner than a slow answer."""
    monkeypatch.setattr(port_module, "HEAD_TIMEOUT_SECONDS", 0.05)
    assert await send(open_port, b"GET /hello HT") == b""


async def test_above_32_connections_the_longest_silent_one_is_closed(open_port: int) -> None:
    """Idle connections block no client; the others are answered."""
    idle = [await asyncio.open_connection("127.0.0.1", open_port) for _ in range(port_module.MAX_CONNECTIONS)]
    assert (await request(open_port, "/hello")).status == 200
    for _, writer in idle:
        writer.write(b"GET /hello HTTP/1.1\r\n\r\n")
    heard = [await _read(reader) for reader, _ in idle]
    for _, writer in idle:
        writer.close()
    assert heard == [b"", *[b"HTTP/1.1 200 OK"] * (len(idle) - 1)]


def test_connections_leave_most_of_few_descriptors_to_the_broker() -> None:
    """So the port cannot use up those that the broker needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        accepted = HttpServer({}).max_connections
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert accepted == 64 // port_module.SHARE_OF_DESCRIPTORS


async def test_a_connection_with_a_request_is_not_closed_for_another() -> None:
    """If all 32 have sent a request, a new one is refused until one is answered."""
    goes_on = asyncio.Event()
    arrived = asyncio.Semaphore(0)

    async def slow() -> Answer:
        arrived.release()
        await goes_on.wait()
        return await _hello()

    port = HttpServer({"/slow": slow, "/hello": _hello})
    number = await port.open("127.0.0.1", 0)
    asking = [asyncio.create_task(request(number, "/slow")) for _ in range(port_module.MAX_CONNECTIONS)]
    for _ in asking:
        await arrived.acquire()
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    refused = await _read(reader)
    writer.close()
    goes_on.set()
    assert {(await each).status for each in asking} == {200}
    assert (refused, (await request(number, "/hello")).status) == (b"", 200)
    await port.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Give the first line of an answer; empty if the peer has closed the connection."""
    try:
        return (await reader.read()).split(b"\r\n")[0]
    except ConnectionResetError:
        return b""


async def test_close_closes_open_connections() -> None:
    """A stop of the broker waits for no client."""
    arrived = asyncio.Event()

    async def endless() -> Answer:
        arrived.set()
        await asyncio.Event().wait()
        return await _hello()

    port = HttpServer({"/endless": endless})
    reader, writer = await asyncio.open_connection("127.0.0.1", await port.open("127.0.0.1", 0))
    writer.write(b"GET /endless HTTP/1.1\r\n\r\n")
    await arrived.wait()
    await asyncio.wait_for(port.close(), PATIENCE_SECONDS)
    assert await _read(reader) == b""
    writer.close()
