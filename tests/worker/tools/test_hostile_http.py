"""The http tool against servers that attack the memory or the time of a worker."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.worker.alone import MOST_KIB, run_alone
from tests.worker.conftest import Perform, Site, failed, needs_proc

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


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """Run a server that reads the head of a request and then calls the handler; gives its address."""
    under_way: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await reader.readuntil(b"\r\n\r\n")
                await handler(writer)
                await writer.drain()
        finally:
            writer.close()
            under_way.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    server.close()
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)


def answers(coding: str, body: bytes, status: str = "200 OK", more: str = "") -> Handler:
    """Answer with a body in a coding."""
    head = f"HTTP/1.1 {status}\r\ncontent-encoding: {coding}\r\n{more}content-length: {len(body)}\r\n\r\n"

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + body)

    return answer


@needs_proc
@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate", "gzip, gzip", "deflate, gzip"])
async def test_a_response_that_inflates_takes_little_memory(coding: str) -> None:
    """It is refused as too large."""
    async with serving(answers(coding.removeprefix("raw "), bomb(*coding.split(", ")))) as url:
        told = await run_alone({"type": "http", "url": url})
    assert told["grown_kib"] < MOST_KIB
    assert told["error"]["type"] == "result_too_large"
    assert "more than the limit of 2097152 bytes" in told["error"]["message"]


@needs_proc
async def test_an_error_response_that_inflates_takes_little_memory() -> None:
    """The error keeps its status, with the start of the body."""
    async with serving(answers("gzip, gzip", bomb("gzip", "gzip"), "503 Busy")) as url:
        told = await run_alone({"type": "http", "url": url})
    assert told["grown_kib"] < MOST_KIB
    assert (told["error"]["type"], told["error"]["status_code"]) == ("http", 503)


@needs_proc
async def test_the_body_of_a_redirect_takes_little_memory(site: Site) -> None:
    """It is not read."""
    async with serving(answers("gzip", bomb("gzip"), "302 Found", f"location: {site.url}\r\n")) as url:
        told = await run_alone({"type": "http", "url": url})
    assert told["grown_kib"] < MOST_KIB
    assert told["result"]["data"] == {"ok": True}


@needs_proc
async def test_a_coding_that_decodes_to_nothing_takes_little_time() -> None:
    """The inner coding gives gigabytes that the outer one decodes to nothing."""
    nothing = b"\0\0\0\xff\xff" * 200_000  # empty blocks
    inner = zlib.compressobj(9, zlib.DEFLATED, -15)
    async with serving(answers("deflate, gzip", repeated(inner.flush(zlib.Z_SYNC_FLUSH) + nothing, 31))) as url:
        told = await run_alone({"type": "http", "url": url})
    assert told["grown_kib"] < MOST_KIB
    assert told["error"]["type"] == "result_too_large"


@pytest.mark.parametrize(
    "coding, words",
    [
        ("br", "in the coding 'br'"),
        ("gzip, zstd", "in the coding 'zstd'"),
        (", ".join(["gzip"] * 10), "in 10 codings"),
    ],
)
async def test_an_unknown_coding_is_refused(perform: Perform, coding: str, words: str) -> None:
    """By name, without a retry. An error response keeps its status."""
    async with serving(answers(coding, b"\x1f\x8b")) as url:
        outcome = await perform({"type": "http", "url": url})
    assert (failed(outcome)["type"], outcome.retryable) == ("not_supported", False)
    assert words in failed(outcome)["message"]
    async with serving(answers(coding, b"\x1f\x8b", "503 Busy")) as url:
        outcome = await perform({"type": "http", "url": url})
    assert (failed(outcome)["status_code"], outcome.retryable) == (503, True)


async def test_a_response_without_a_body_may_name_any_coding(perform: Perform) -> None:
    """There is nothing to decode."""
    async with serving(answers("br", b"")) as url:
        assert (await perform({"type": "http", "url": url, "method": "HEAD"}))["data"] == ""


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "raw deflate", "identity", "GZIP , deflate"])
async def test_known_codings_are_decoded(perform: Perform, coding: str) -> None:
    """Also two of them."""
    body = b'{"a": "' + b"x" * 1_500_000 + b'"}'
    for one in coding.lower().removeprefix("x-").split(" , "):
        body = zlib.compress(body, 9, WINDOWS[one]) if one in WINDOWS else body
    async with serving(answers(coding.removeprefix("raw "), body, more="content-type: application/json\r\n")) as url:
        told = await perform({"type": "http", "url": url})
    assert told["data"] == {"a": "x" * 1_500_000}


async def test_the_request_accepts_only_known_codings(perform: Perform, site: Site) -> None:
    """Whatever other libraries are installed."""
    await perform({"type": "http", "url": site.url})
    assert site.requests[0]["headers"]["accept-encoding"] == "gzip, deflate"


async def test_a_response_with_a_broken_coding_is_retryable(perform: Perform) -> None:
    """The next answer of the server may be right."""
    async with serving(answers("gzip", b"no gzip at all")) as url:
        outcome = await perform({"type": "http", "url": url})
    assert (failed(outcome)["type"], outcome.retryable) == ("http", True)
    assert "cannot be read as gzip" in failed(outcome)["message"]


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


@pytest.mark.parametrize("handler", SLOW)
async def test_one_timeout_limits_the_whole_exchange(perform: Perform, handler: Handler) -> None:
    """However often a byte comes."""
    async with serving(handler) as url:
        outcome = await perform({"type": "http", "url": url, "timeout": "{{ 1 }}", "unfinished": [["timeout"]]})
    assert failed(outcome)["message"].endswith("did not answer in full within 1 s")
    assert (failed(outcome)["type"], outcome.retryable) == ("timeout", True)


async def test_the_timeout_includes_the_tls_handshake(perform: Perform) -> None:
    """The connection is closed."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")  # the start of a long server hello
            await forever(writer, b"\x03")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    action = {"type": "http", "url": f"https://127.0.0.1:{port}/", "timeout": "{{ 1 }}", "unfinished": [["timeout"]]}
    outcome = await perform(action)
    server.close()
    async with asyncio.timeout(30):
        await server.wait_closed()
    assert failed(outcome)["message"].endswith("did not answer in full within 1 s")


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


ENDLESS: list[tuple[Handler, str]] = [
    (ends_no_head, "connection"),
    (ends_no_line, "connection"),
    (ends_no_chunk, "connection"),
    (ends_no_trailer, "connection"),
    (ends_no_body, "timeout"),
    (only_continues, "timeout"),
]


@needs_proc
@pytest.mark.parametrize("handler, kind", ENDLESS)
async def test_an_endless_response_takes_little_memory(handler: Handler, kind: str) -> None:
    """As fast as it comes."""
    async with serving(handler) as url:
        seconds = 1 if kind == "timeout" else 50  # a slow machine reads longer until it meets the bound
        action = {"type": "http", "url": url, "timeout": f"{{{{ {seconds} }}}}", "unfinished": [["timeout"]]}
        told = await run_alone(action, limit=60)
    assert told["grown_kib"] < MOST_KIB
    assert told["error"]["type"] == kind


async def test_endless_redirects_are_a_fault(perform: Perform, site: Site) -> None:
    """After twenty."""
    site.answer = (302, {"location": "/"}, b"")
    outcome = await perform({"type": "http", "url": site.url})
    assert failed(outcome)["message"].endswith("redirects without end")
    assert len(site.requests) == 21
