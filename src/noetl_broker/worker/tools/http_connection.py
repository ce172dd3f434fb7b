"""One HTTP/1.1 connection, for one exchange after another.

Between two exchanges nothing may come from the server: any byte, or the end of the connection, closes it. So an answer
is never read in a later exchange. A connection that the server has closed is noticed before a request is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

import h11
import httpx

READ_BYTES = 256 * 1024  # that wait for the reader; the server must wait beyond
EVENT_BYTES = 100 * 1024  # of a head, a line or a trailer that is not complete
ATTEMPT_SECONDS = 0.25  # until the next address of a name is tried, too
# A connection that waits is probed, and closed soon after the server has vanished.
PROBES = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 5_000}

Event = Any  # of h11


class HttpConnection(asyncio.Protocol):
    """A connection to one server."""

    def __init__(self) -> None:
        self.opened_at = time.monotonic()
        self.answered = False  # whether a byte of the current answer has come
        self._peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=EVENT_BYTES)
        self._transport: Any = None
        self._received = bytearray()
        self._paused = False
        self._resting = False
        self._watched = False
        self._ended = False
        self._fault: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, host: str, port: int, tls: ssl.SSLContext | None) -> HttpConnection:
        """Connect. Raises httpx.ConnectError."""
        loop, connection = asyncio.get_running_loop(), cls()
        try:
            await loop.create_connection(lambda: connection, host, port, happy_eyeballs_delay=ATTEMPT_SECONDS)
            if tls is not None:
                plain = connection._transport
                connection._transport = await loop.start_tls(plain, connection, tls, server_hostname=host)
        except OSError as error:
            connection.terminate()
            raise httpx.ConnectError(str(error) or type(error).__name__) from None
        except BaseException:
            connection.terminate()
            raise
        return connection

    def send(self, head: h11.Request, body: bytes) -> None:
        """Begin an exchange: send a request. Raises httpx.LocalProtocolError for a head that HTTP does not allow."""
        self._resting = self.answered = False
        try:
            parts = [self._peer.send(head), self._peer.send(h11.Data(data=body)) if body else b""]
            parts.append(self._peer.send(h11.EndOfMessage()))
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from None
        self._transport.write(b"".join(part for part in parts if part))

    async def next_event(self) -> Event:
        """The next part of the answer. Raises httpx.ReadError and httpx.RemoteProtocolError."""
        while (event := self._parse()) is h11.NEED_DATA:
            data = await self._read()
            if not data and self._peer.their_state is h11.SEND_RESPONSE:
                raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
            self._peer.receive_data(data)
        return event

    def rest(self) -> bool:
        """End an exchange. If its answer has not ended, or is followed by more, the connection is closed: False."""
        try:
            if self._peer.their_state is h11.SEND_BODY:
                self._parse()  # the end of an empty body
            done = self._peer.our_state is h11.DONE and self._peer.their_state is h11.DONE
        except httpx.RemoteProtocolError:
            done = False
        more = self._received or self._peer.trailing_data[0] or self._transport.get_write_buffer_size()
        if not done or more or self._ended:
            self.terminate()
            return False
        self._peer.start_next_cycle()
        self._resting = True
        if not self._watched:
            self._watch()
        return True

    def is_closed(self) -> bool:
        """Whether nothing more can be sent."""
        return self._ended

    def terminate(self) -> None:
        """Close the connection without waiting for anything."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        """Take the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect data of the current answer."""
        if self._resting:
            self.terminate()
            return
        self.answered = True
        self._received += data
        if len(self._received) > READ_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Note that nothing more comes; the connection is closed."""
        self._ended = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end, and why."""
        self._ended, self._fault = True, exc
        self._wake()

    def _parse(self) -> Event:
        try:
            return self._peer.next_event()
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from None

    async def _read(self) -> bytes:
        """More data; empty at the end of the connection."""
        while not self._received and not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._received:
            data = bytes(self._received)
            self._received.clear()
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
            return data
        if self._fault is not None:
            raise httpx.ReadError(str(self._fault) or type(self._fault).__name__)
        return b""

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _watch(self) -> None:
        """Have the system find out when the server has vanished without a word."""
        self._watched = True
        own = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in PROBES.items():
                if option := getattr(socket, name, None):
                    own.setsockopt(socket.IPPROTO_TCP, option, value)


def request_head(method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> h11.Request:
    """The head of a request. Raises httpx.LocalProtocolError for what HTTP does not allow."""
    try:
        return h11.Request(method=method, target=target, headers=[*headers])
    except h11.LocalProtocolError as error:
        raise httpx.LocalProtocolError(str(error)) from None
