"""The http tool against servers that attack the memory or the time of a worker."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from noetl_broker.template import unwrap
from tests.worker.alone import run_alone
from tests.worker.conftest import Perform, Site, failed, needs_proc
from tests.worker.servers import listening

Handler = Callable[[asyncio.StreamWriter], Awaitable[None]]
ZEROS = bytes(1024 * 1024)
MIB = 256  # of zeros in each bomb
WINDOWS = {"gzip": 31, "deflate": 15, "raw deflate": -15}
OK = b"HTTP/1.1 200 OK\r\n"


def repeated(part: bytes, window: int) -> bytes:
    """Compress a part that comes `MIB` times; the checksum at the end, to which nobody reads, is that of two."""
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    # After a full flush, the compressed part depends on nothing before it.
    first, next_ = (packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + next_ * (MIB - 1) + packer.flush()


def bomb(*codings: str) -> bytes:
    """Compress zeros, once for each coding."""
    first, *others = codings
    packed = repeated(ZEROS, WINDOWS[first])
    for coding in others:
        packed = zlib.compress(packed, 9, WINDOWS[coding])
    return packed


@asynccontextmanager
async def serving(*handlers: Handler) -> AsyncIterator[list[str]]:
    """Run a server for each handler, which is called after the head of a request; gives their addresses."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await handler(writer)
        await writer.drain()

    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(listening(partial(serve, handler=handler))) for handler in handlers]
        yield [f"http://127.0.0.1:{port}/" for port in ports]


def answers(coding: str, body: bytes, status: str = "200 OK", more: str = "") -> Handler:
    """Answer with a body in a coding."""
    head = f"HTTP/1.1 {status}\r\ncontent-encoding: {coding}\r\n{more}content-length: {len(body)}\r\n\r\n"

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + body)

    return answer


def limited(url: str, seconds: int) -> dict[str, Any]:
    """Make a request that may take so long."""
    return {"type": "http", "url": url, "timeout": f"{{{{ {seconds} }}}}", "unfinished": [["timeout"]]}


@needs_proc
async def test_a_response_that_inflates_takes_little_memory(site: Site) -> None:
    """It is refused as too large, also if it inflates twice, or to gigabytes that its outer coding decodes to nothing.

    An error response keeps its status, and the body of a redirect is not read.
    """
    nothing = b"\0\0\0\xff\xff" * 200_000  # empty blocks
    inner = zlib.compressobj(9, zlib.DEFLATED, -15)
    codings = ["gzip", "deflate", "raw deflate", "gzip, gzip", "deflate, gzip"]
    bombs = [answers(coding.removeprefix("raw "), bomb(*coding.split(", "))) for coding in codings]
    bombs.append(answers("deflate, gzip", repeated(inner.flush(zlib.Z_SYNC_FLUSH) + nothing, 31)))
    bombs.append(answers("gzip, gzip", bomb("gzip", "gzip"), "503 Busy"))
    bombs.append(answers("gzip", bomb("gzip"), "302 Found", f"location: {site.url}\r\n"))
    async with serving(*bombs) as urls:
        *refused, error, redirected = await run_alone(*({"type": "http", "url": url} for url in urls))
    assert [told["error"]["type"] for told in refused] == ["result_too_large"] * 6
    assert "more than the limit of 2097152 bytes" in refused[0]["error"]["message"]
    assert (error["error"]["type"], error["error"]["status_code"]) == ("http", 503)
    assert redirected["result"]["data"] == {"ok": True}


@pytest.mark.parametrize(
    "coding, words",
    [
        ("br", "in the coding 'br'"),
        ("gzip, zstd", "in the coding 'zstd'"),
        (", ".join(["gzip"] * 10), "in 10 codings"),
    ],
)
async def test_an_unknown_coding_is_refused(perform: Perform, coding: str, words: str) -> None:
    """By name, without a retry. An error response keeps its status. Without a body there is nothing to decode."""
    replies = [answers(coding, b"\x1f\x8b"), answers(coding, b"\x1f\x8b", "503 Busy"), answers(coding, b"")]
    async with serving(*replies) as (usual, busy, empty):
        outcome = await perform({"type": "http", "url": usual})
        assert (failed(outcome)["type"], outcome.retryable) == ("not_supported", False)
        assert words in failed(outcome)["message"]
        outcome = await perform({"type": "http", "url": busy})
        assert (failed(outcome)["status_code"], outcome.retryable) == (503, True)
        assert (await perform({"type": "http", "url": empty, "method": "HEAD"}))["data"] == ""


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "raw deflate", "identity", "GZIP , deflate"])
async def test_known_codings_are_decoded(perform: Perform, coding: str) -> None:
    """Also two of them."""
    body = b'{"a": "' + b"x" * 1_500_000 + b'"}'
    for one in coding.lower().removeprefix("x-").split(" , "):
        body = zlib.compress(body, 9, WINDOWS[one]) if one in WINDOWS else body
    reply = answers(coding.removeprefix("raw "), body, more="content-type: application/json\r\n")
    async with serving(reply) as [url]:
        told = await perform({"type": "http", "url": url})
    assert told["data"] == {"a": "x" * 1_500_000}


async def test_the_request_accepts_only_known_codings(perform: Perform, site: Site) -> None:
    """Whatever other libraries are installed."""
    await perform({"type": "http", "url": site.url})
    assert site.requests[0]["headers"]["accept-encoding"] == "gzip, deflate"


async def test_a_response_with_a_broken_coding_is_retryable(perform: Perform) -> None:
    """The next answer of the server may be right. In a loop with on_error continue, only its item fails."""
    async with serving(answers("gzip", b"no gzip at all")) as [url]:
        outcome = await perform({"type": "http", "url": url})
        loop = {"collection": [1], "element": "n", "on_error": "continue"}
        assert unwrap(await perform({"type": "http", "url": url, "loop": loop})) == [None]
    assert (failed(outcome)["type"], outcome.retryable) == ("http", True)
    assert f"GET {url} answers with what cannot be read as gzip" in failed(outcome)["message"]


async def forever(writer: asyncio.StreamWriter, part: bytes, pause: float = 0.05) -> None:
    """Write the same part again and again."""
    while True:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause)


async def drips_a_body(writer: asyncio.StreamWriter) -> None:
    """A byte now and then."""
    writer.write(OK + b"content-length: 100000\r\n\r\n")
    await forever(writer, b"x")


async def drips_a_head(writer: asyncio.StreamWriter) -> None:
    """A byte of a header now and then."""
    writer.write(OK + b"x-slow: ")
    await forever(writer, b"x")


async def asks_to_continue(writer: asyncio.StreamWriter) -> None:
    """Send 100 Continue again and again."""
    await forever(writer, b"HTTP/1.1 100 Continue\r\n\r\n")


async def drips_an_error(writer: asyncio.StreamWriter) -> None:
    """Send the status, but not the rest."""
    writer.write(b"HTTP/1.1 503 Busy\r\n\r\n")
    await forever(writer, b"x")


async def redirects_slowly(writer: asyncio.StreamWriter) -> None:
    """Redirect to itself each time."""
    await asyncio.sleep(0.2)
    writer.write(b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n")


SLOW = [drips_a_body, drips_a_head, asks_to_continue, drips_an_error, redirects_slowly]


async def test_one_timeout_limits_the_whole_exchange(perform: Perform) -> None:
    """However often a byte comes; also in a TLS handshake."""

    async def shakes_hands(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")  # the start of a long server hello
        await forever(writer, b"\x03")

    async with serving(*SLOW) as urls, listening(shakes_hands) as port:
        urls.append(f"https://127.0.0.1:{port}/")
        outcomes = await asyncio.gather(*(perform(limited(url, 1)) for url in urls))
    for outcome in outcomes:
        assert failed(outcome)["message"].endswith("did not answer in full within 1 s")
        assert (failed(outcome)["type"], outcome.retryable) == ("timeout", True)


async def ends_no_head(writer: asyncio.StreamWriter) -> None:
    """Send headers without end."""
    writer.write(OK)
    await forever(writer, b"x-more: y\r\n" * 5_000, 0)


async def ends_no_line(writer: asyncio.StreamWriter) -> None:
    """One header without an end."""
    writer.write(OK + b"x-long: ")
    await forever(writer, b"y" * 50_000, 0)


async def ends_no_chunk(writer: asyncio.StreamWriter) -> None:
    """Send a chunk extension without end."""
    writer.write(OK + b"transfer-encoding: chunked\r\n\r\n5;x=")
    await forever(writer, b"y" * 50_000, 0)


async def ends_no_trailer(writer: asyncio.StreamWriter) -> None:
    """Send trailers without end."""
    writer.write(OK + b"transfer-encoding: chunked\r\n\r\n0\r\n")
    await forever(writer, b"x-more: y\r\n" * 5_000, 0)


async def ends_no_body(writer: asyncio.StreamWriter) -> None:
    """One byte in each chunk."""
    writer.write(OK + b"transfer-encoding: chunked\r\n\r\n")
    await forever(writer, b"1\r\nx\r\n" * 10_000, 0)


async def only_continues(writer: asyncio.StreamWriter) -> None:
    """Send 100 Continue as fast as possible."""
    await forever(writer, b"HTTP/1.1 100 Continue\r\nx-more: y\r\n\r\n" * 1_000, 0)


BOUNDED = [ends_no_head, ends_no_line, ends_no_chunk, ends_no_trailer]
TIMED = [ends_no_body, only_continues]


@needs_proc
async def test_an_endless_response_takes_little_memory() -> None:
    """As fast as it comes. Each ends by a bound of its form, however slow the machine is, or by its time limit."""
    async with serving(*BOUNDED, *TIMED) as urls:
        seconds = [50] * len(BOUNDED) + [1] * len(TIMED)
        told = await run_alone(*map(limited, urls, seconds))
    assert [one["error"]["type"] for one in told] == ["connection"] * len(BOUNDED) + ["timeout"] * len(TIMED)


async def test_endless_redirects_are_a_fault(perform: Perform, site: Site) -> None:
    """After twenty."""
    site.answer = (302, {"location": "/"}, b"")
    outcome = await perform({"type": "http", "url": site.url})
    assert failed(outcome)["message"].endswith("redirects without end")
    assert len(site.requests) == 21
