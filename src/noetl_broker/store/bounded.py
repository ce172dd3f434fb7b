"""A connection that is cut once the server sends more than it may, before the driver has it in memory.

The driver keeps a message until it is whole, and then copies it. So the messages are looked at on their way to it: each
tells its length at its start.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

HEAD_BYTES = 5  # of a message: a letter, and the length of the rest with these four bytes
ROW, ROW_BYTES = ord("D"), 64  # what the driver makes of the smallest one
TOLD = frozenset(b"EN")  # errors and notices
FREE = frozenset(b"123ACINTZnst")  # nothing of these messages is kept beyond the next


class TooMuchFault(Exception):
    """The server sends more than it may; the message says what to do."""


class BoundedConnection(asyncpg.Connection):
    """A connection for statements whose rows are not known to be few."""

    __slots__ = ("_driver", "_socket")

    def __init__(self, protocol: Any, transport: Any, *more: Any) -> None:
        super().__init__(protocol, transport, *more)
        self._driver = protocol
        self._socket = transport

    def bound(self, most_bytes: int, fault: str) -> None:
        """Cut the connection once the server has sent so much from now on; what waits for it is told the `fault`.

        The driver raises ConnectionDoesNotExistError with TooMuchFault as its cause. What the driver does not keep, as
        notices, counts one by one.
        """
        self._socket.set_protocol(_Meter(self._driver, self._socket, most_bytes, fault))


class _Meter(asyncio.Protocol):
    """Stands between a connection's socket and the driver."""

    def __init__(self, driver: Any, transport: Any, most_bytes: int, fault: str) -> None:
        self._driver = driver
        self._transport = transport
        self._most_bytes = most_bytes
        self._fault = fault
        self._received = 0
        self._head = b""  # of a message of which less than that has come
        self._left = 0  # of the message that is coming
        self._raised: TooMuchFault | None = None

    def data_received(self, data: bytes) -> None:
        """Hand data on, or cut the connection."""
        if self._raised is None:
            self._raised = self._look(data)
            if self._raised is None:
                self._driver.data_received(data)
            else:
                self._transport.abort()

    def _look(self, data: bytes) -> TooMuchFault | None:
        """Go through the heads of the messages in this piece of data; gives what is wrong with one of them."""
        position, end = 0, len(data)
        while True:
            skipped = min(self._left, end - position)
            self._left -= skipped
            position += skipped
            if position == end:
                return None
            part = data[position : position + HEAD_BYTES - len(self._head)]
            position += len(part)
            self._head += part
            if len(self._head) < HEAD_BYTES:
                return None
            kind, length = self._head[0], int.from_bytes(self._head[1:])
            self._head, self._left = b"", max(length - HEAD_BYTES + 1, 0)
            if kind in TOLD and length > self._most_bytes:
                told = f"the server sends an error or a notice of {length} bytes"
                return TooMuchFault(f"{told}, and {self._most_bytes} are read at most; have it say less")
            if kind not in FREE:
                self._received += max(length, ROW_BYTES if kind == ROW else 0)
            if max(self._received, length) > self._most_bytes:
                return TooMuchFault(self._fault)

    def eof_received(self) -> bool | None:
        """Hand it on."""
        ends: bool | None = self._driver.eof_received()
        return ends

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand it on, with the reason."""
        self._driver.connection_lost(self._raised or exc)

    def pause_writing(self) -> None:
        """Hand it on."""
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        """Hand it on."""
        self._driver.resume_writing()
