"""A port that answers GET and HEAD on a few paths: as much of HTTP/1.1 as a probe and a scraper need, and no more.

Whoever can reach it may be anybody, so everything has a bound: the head of a request, the time for it all, the number
of connections. A connection serves one request. Where all are taken, the one that has said nothing for longest gives
way to a new one: who only connects keeps nobody out. We accept by ourselves, one at a time, because asyncio's server
writes a traceback a hundred times over where the process has no descriptor left.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

import structlog

log = structlog.get_logger(__name__)

MOST_HEAD_BYTES = 8192
MOST_HEAD_SECONDS = 5.0  # from the connection to the end of the request's head
MOST_SECONDS = 10.0  # from the connection to the last byte of the answer
MOST_CONNECTIONS = 32
SHARE_OF_DESCRIPTORS = 4  # at most one in so many of what the process may open: the database comes first
REST_SECONDS = 1.0  # where no connection can be taken
WAITING = 128  # connections that the system keeps for us
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
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._silent: dict[asyncio.Task[Any], None] = {}  # no request yet; the first has waited for longest
        self.most = _most_connections()

    async def open(self, host: str, port: int) -> int:
        """Listen, and give the number of the port (of 0 the system makes a free one). Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, address in dict.fromkeys((each[0], each[4]) for each in found):
                self._sockets.append(_listen(family, address))
        except OSError:
            self._hang_up()
            raise
        self._accepting = [asyncio.create_task(self._accept(each), name="health port") for each in self._sockets]
        return int(self._sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Listen no more, and end what is under way."""
        tasks = [*self._accepting, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._hang_up()

    def _hang_up(self) -> None:
        for each in self._sockets:
            each.close()
        self._sockets = []

    async def _accept(self, listening: socket.socket) -> None:
        """Take one connection after the other; where there is no descriptor for it, rest and say so once."""
        loop, told = asyncio.get_running_loop(), False
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if not told:
                    reason = str(error)
                    log.warning("the health port can take no connection", error=reason, connections=len(self._tasks))
                told = True
                await self._make_room()
                await asyncio.sleep(REST_SECONDS)
                continue
            told = False
            if len(self._tasks) >= self.most and not await self._make_room():
                connection.close()  # all others are being answered
                continue
            task = asyncio.create_task(self._serve(connection))
            self._tasks.add(task)
            self._silent[task] = None
            task.add_done_callback(partial(_close_unbegun, connection))
            await asyncio.sleep(0)

    async def _make_room(self) -> bool:
        """Hang up on the one that has said nothing for longest; False where all have asked for something."""
        for task in self._silent:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return True
        return False

    async def _serve(self, connection: socket.socket) -> None:
        """One connection; none waits for another, and none tells another's trouble."""
        task = asyncio.current_task()
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(MOST_SECONDS):
                reader, writer = await asyncio.open_connection(sock=connection, limit=MOST_HEAD_BYTES)
                answer, with_body = await self._answer(reader)
                writer.write(_head(answer) + (answer.body if with_body else b""))
                await writer.drain()
            writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if writer is not None:  # gone, too slow, or it gave way
                writer.transport.abort()
            else:
                connection.close()
        finally:
            if task is not None:
                self._tasks.discard(task)
                self._silent.pop(task, None)

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Answer, bool]:
        """The answer to the request that comes, and whether its body is wanted."""
        try:
            async with asyncio.timeout(MOST_HEAD_SECONDS):
                head = await reader.readuntil(END_OF_HEAD)
            self._silent.pop(asyncio.current_task(), None)  # type: ignore[arg-type] # this is a task
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


def _close_unbegun(connection: socket.socket, task: asyncio.Task[None]) -> None:
    """One that was cancelled before it began has nobody else who closes its connection."""
    if task.cancelled():
        connection.close()


def _listen(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(WAITING)
        made.setblocking(False)  # noqa: FBT003 - the standard library's own
    except OSError:
        made.close()
        raise
    return made


def _most_connections() -> int:
    """As many as are allowed, but no more than a part of what this process may open."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if descriptors < 0 else max(1, min(MOST_CONNECTIONS, descriptors // SHARE_OF_DESCRIPTORS))


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
