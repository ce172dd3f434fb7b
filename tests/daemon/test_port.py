"""The port that answers probes: what it serves, what it refuses, and that nobody can hold it up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest

from noetl_broker.daemon import port as port_module
from noetl_broker.daemon.port import Answer, Port
from tests.asking import ask, send


async def _hello() -> Answer:
    return Answer(HTTPStatus.OK, b'{"said": "hello"}')


async def _broken() -> Answer:
    raise RuntimeError("a secret")


@pytest.fixture
async def open_port() -> AsyncIterator[int]:
    """Yield the number of a port with two routes."""
    port = Port({"/hello": _hello, "/broken": _broken})
    yield await port.open("127.0.0.1", 0)
    await port.close()


async def test_a_get_is_answered(open_port: int) -> None:
    """With its length and its type, and the connection ends there."""
    heard = await ask(open_port, "/hello?verbose=1")
    assert (heard.status, heard.body, heard.headers["Content-Length"]) == (200, '{"said": "hello"}', "17")
    assert (heard.headers["Content-Type"], heard.headers["Connection"]) == ("application/json", "close")


async def test_a_head_is_answered_without_a_body(open_port: int) -> None:
    """It says how long the body would have been."""
    heard = await ask(open_port, "/hello", method="HEAD")
    assert (heard.status, heard.body, heard.headers["Content-Length"]) == (200, "", "17")


async def test_another_path_is_404_and_says_what_there_is(open_port: int) -> None:
    """Whoever mistyped sees the paths."""
    heard = await ask(open_port, "/")
    assert (heard.status, heard.body) == (404, "404 Not Found; here are /hello, /broken\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_another_method_is_405(open_port: int, method: str) -> None:
    """Nothing can be changed here."""
    heard = await ask(open_port, "/hello", method=method)
    assert (heard.status, heard.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "line", [b"hello", b"GET /hello", b"GET /hello SPDY/3", b"GET  /hello HTTP/1.1", b"\x16\x03\x01\x02\x00"]
)
async def test_what_is_no_http_is_400(open_port: int, line: bytes) -> None:
    """A TLS handshake too."""
    assert (await send(open_port, line + b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_a_head_past_8_kib_is_431(open_port: int) -> None:
    """It is not read to its end."""
    request = b"GET /hello HTTP/1.1\r\nX: " + b"x" * port_module.MOST_HEAD_BYTES + b"\r\n\r\n"
    assert (await send(open_port, request)).startswith(b"HTTP/1.1 431 ")


async def test_a_fault_of_a_route_is_500_without_detail(open_port: int) -> None:
    """The log has the rest."""
    heard = await ask(open_port, "/broken")
    assert (heard.status, heard.body) == (500, "500 Internal Server Error\n")


async def test_who_sends_nothing_is_cut_off(open_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time for a whole request."""
    monkeypatch.setattr(port_module, "MOST_SECONDS", 0.05)
    assert await send(open_port, b"GET /hello HT") == b""


async def test_a_head_that_does_not_come_is_cut_off(open_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sooner than an answer that takes its time."""
    monkeypatch.setattr(port_module, "MOST_HEAD_SECONDS", 0.05)
    assert await send(open_port, b"GET /hello HT") == b""


async def test_past_32_connections_the_longest_silent_one_gives_way(open_port: int) -> None:
    """Who only connects keeps nobody out; the others that were there are answered."""
    idle = [await asyncio.open_connection("127.0.0.1", open_port) for _ in range(port_module.MOST_CONNECTIONS)]
    assert (await ask(open_port, "/hello")).status == 200
    for _, writer in idle:
        writer.write(b"GET /hello HTTP/1.1\r\n\r\n")
    heard = [await _read(reader) for reader, _ in idle]
    for _, writer in idle:
        writer.close()
    assert heard == [b"", *[b"HTTP/1.1 200 OK"] * (len(idle) - 1)]


async def test_who_is_answered_gives_way_to_nobody() -> None:
    """Where all 32 have asked, a new one is refused; as soon as one is answered, the next is served."""
    goes_on = asyncio.Event()

    async def slow() -> Answer:
        await goes_on.wait()
        return await _hello()

    port = Port({"/slow": slow, "/hello": _hello})
    number = await port.open("127.0.0.1", 0)
    asking = [asyncio.create_task(ask(number, "/slow")) for _ in range(port_module.MOST_CONNECTIONS)]
    while len(port._tasks) - len(port._silent) < len(asking):  # noqa: ASYNC110 - the port tells nobody whom it serves
        await asyncio.sleep(0)
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    refused = await _read(reader)
    writer.close()
    goes_on.set()
    assert {(await each).status for each in asking} == {200}
    assert (refused, (await ask(number, "/hello")).status) == (b"", 200)
    await port.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """The first line of an answer; nothing where the other side has hung up."""
    try:
        return (await reader.read()).split(b"\r\n")[0]
    except ConnectionResetError:
        return b""


async def test_closing_cuts_who_is_still_connected() -> None:
    """A stop of the broker waits for no scraper."""
    port = Port({"/hello": _hello})
    reader, writer = await asyncio.open_connection("127.0.0.1", await port.open("127.0.0.1", 0))
    writer.write(b"GET")
    await writer.drain()
    while not port._tasks:  # noqa: ASYNC110 - the port tells nobody whom it serves
        await asyncio.sleep(0)
    await asyncio.wait_for(port.close(), 5.0)
    with contextlib.suppress(ConnectionResetError):  # where the system had not handed on what we wrote
        assert await reader.read() == b""
    writer.close()
