"""A small HTTP/1.1 server for the health port: GET and HEAD on a few paths, one request a connection.

Anybody may connect, so everything is bounded: the request head, the time for an answer, the number of connections. When
all connections are in use, a new one replaces the one that has been silent longest. asyncio's own server is not used:
without free file descriptors it logs tracebacks in a loop.
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

MAX_HEAD_BYTES = 8192
HEAD_TIMEOUT_SECONDS = 5.0  # from the connection to the end of the request's head
TIMEOUT_SECONDS = 10.0  # from the connection to the last byte of the answer
MAX_CONNECTIONS = 32
SHARE_OF_DESCRIPTORS = 4  # the port uses at most a quarter of the file descriptors: the database needs the others
PAUSE_SECONDS = 1.0  # after a connection could not be accepted
BACKLOG = 128  # connections that the system queues
TOKENS = 3  # of a request line: method, target, version
END_OF_HEAD = b"\r\n\r\n"


class Answer(NamedTuple):
    """What a path answers."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


Route = Callable[[], Awaitable[Answer]]


class HttpServer:
    """Serves routes from `open` to `close`."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        """`routes` by path, such as `/live`."""
        self._routes = routes
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._silent: dict[asyncio.Task[Any], None] = {}  # without a request so far, the longest silent first
        self.max_connections = _max_connections()

    async def open(self, host: str, port: int) -> int:
        """Listen, and return the port number (the system chooses one for 0). Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, address in dict.fromkeys((each[0], each[4]) for each in found):
                self._sockets.append(_listen(family, address))
        except OSError:
            self._close_sockets()
            raise
        self._accepting = [asyncio.create_task(self._accept(each), name="health port") for each in self._sockets]
        return int(self._sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, and cancel the requests that run."""
        tasks = [*self._accepting, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._close_sockets()

    def _close_sockets(self) -> None:
        for each in self._sockets:
            each.close()
        self._sockets = []

    async def _accept(self, listening: socket.socket) -> None:
        """Accept connections; when the process has no descriptor left, log it once and wait."""
        loop, is_logged = asyncio.get_running_loop(), False
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if not is_logged:
                    reason = str(error)
                    log.warning("the health port can take no connection", error=reason, connections=len(self._tasks))
                is_logged = True
                await self._make_room()
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            is_logged = False
            if len(self._tasks) >= self.max_connections and not await self._make_room():
                connection.close()  # all others have sent a request
                continue
            task = asyncio.create_task(self._serve(connection))
            self._tasks.add(task)
            self._silent[task] = None
            task.add_done_callback(partial(_close_if_not_begun, connection))
            await asyncio.sleep(0)

    async def _make_room(self) -> bool:
        """Close the connection that has been silent longest; False when all have sent a request."""
        for task in self._silent:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return True
        return False

    async def _serve(self, connection: socket.socket) -> None:
        """Answer one connection; a fault of it ends nothing else."""
        task = asyncio.current_task()
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_HEAD_BYTES)
                answer, with_body = await self._answer(reader)
                writer.write(_head(answer) + (answer.body if with_body else b""))
                await writer.drain()
            writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if writer is not None:  # the peer is gone or too slow, or a new connection replaces this one
                writer.transport.abort()
            else:
                connection.close()
        finally:
            if task is not None:
                self._tasks.discard(task)
                self._silent.pop(task, None)

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Answer, bool]:
        """Read a request; returns the answer, and whether to send its body."""
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_SECONDS):
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
            return _refusal(HTTPStatus.NOT_FOUND, f"; paths: {', '.join(self._routes)}"), method != b"HEAD"
        if method not in {b"GET", b"HEAD"}:
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED), True
        try:
            return await route(), method == b"GET"
        except Exception as error:  # the client gets no detail
            log.exception("a request to the health port failed", path=target.decode("latin-1"), exc_info=error)
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR), True


def _close_if_not_begun(connection: socket.socket, task: asyncio.Task[None]) -> None:
    """Close the connection of a task that was cancelled before it began."""
    if task.cancelled():
        connection.close()


def _listen(family: int, address: Any) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)  # noqa: FBT003 - the standard library's own
    except OSError:
        listening.close()
        raise
    return listening


def _max_connections() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if descriptors < 0 else max(1, min(MAX_CONNECTIONS, descriptors // SHARE_OF_DESCRIPTORS))


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
