"""A port that answers GET and HEAD on a few paths: as much of HTTP/1.1 as a probe and a scraper need, and no more.

Whoever can reach it may be anybody, so everything has a bound: the head of a request, the time for it all, the number
of connections. A connection serves one request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import structlog

log = structlog.get_logger(__name__)

MOST_HEAD_BYTES = 8192
MOST_SECONDS = 10.0  # from the connection to the last byte of the answer
MOST_CONNECTIONS = 32
TOKENS = 3  # of a request line: method, target, version
END_OF_HEAD = b"\r\n\r\n"


class Answer(NamedTuple):
    """What a path answers."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


Route = Callable[[], Awaitable[Answer]]


class Port:
    """Serves its routes from `open` to `close`."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        """Not open yet; each route is a path such as `/live`."""
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self, host: str, port: int) -> int:
        """Listen, and give the number of the port (of 0 the system makes a free one). Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=MOST_HEAD_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Listen no more, and end what is under way."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection; none waits for another, and none tells another's trouble."""
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            async with asyncio.timeout(MOST_SECONDS):
                answer, with_body = await self._answer(reader)
                writer.write(_head(answer) + (answer.body if with_body else b""))
                await writer.drain()
            writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()  # gone, or too slow
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Answer, bool]:
        """The answer to the request that comes, and whether its body is wanted."""
        try:
            head = await reader.readuntil(END_OF_HEAD)
        except asyncio.LimitOverrunError:
            return _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), True
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != TOKENS or not words[2].startswith(b"HTTP/1."):
            return _refusal(HTTPStatus.BAD_REQUEST), True
        method, target, _ = words
        route = self._routes.get(target.split(b"?", 1)[0].decode("latin-1"))
        if route is None:
            return _refusal(HTTPStatus.NOT_FOUND, f"; here are {', '.join(self._routes)}"), method != b"HEAD"
        if method not in {b"GET", b"HEAD"}:
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED), True
        try:
            return await route(), method == b"GET"
        except Exception as error:  # the outermost place of a request; its asker hears no detail
            log.exception("a request to the health port failed", path=target.decode("latin-1"), exc_info=error)
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR), True


def _refusal(status: HTTPStatus, more: str = "") -> Answer:
    return Answer(status, f"{status.value} {status.phrase}{more}\n".encode(), "text/plain; charset=utf-8")


def _head(answer: Answer) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
