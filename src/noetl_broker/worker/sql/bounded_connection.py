"""A connection that is closed when the server sends more than a limit, before the driver has it in memory.

The driver buffers a message until it is complete, and then copies it. So the length at the start of each message is
read before the driver gets it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg

HEAD_BYTES = 5  # of a message: its kind, and its length
ROW, ROW_BYTES = ord("D"), 64  # the memory of the smallest row in the driver
MESSAGES = frozenset(b"EN")  # errors and notices
NOT_KEPT = frozenset(b"123ACINTZnst")  # the driver keeps nothing of these


class TooMuchFault(Exception):
    """The server sends more than the limit; the message says what to do."""


class BoundedConnection(asyncpg.Connection):
    """A connection for statements that may return any number of rows."""

    __slots__ = ("_meter", "opened_at")

    def __init__(self, protocol: Any, transport: Any, *more: Any) -> None:
        super().__init__(protocol, transport, *more)
        self._meter = _Meter(protocol, transport)
        self.opened_at = time.monotonic()

    def bound(self, most_bytes: int, fault: str) -> None:
        """Close the connection when the server has sent so many bytes from now on.

        The driver then raises ConnectionDoesNotExistError, and its cause is TooMuchFault with this `fault`. Messages
        that the driver does not keep are limited one by one.
        """
        self._meter.begin(most_bytes, fault)


class _Meter(asyncio.Protocol):
    """Counts the bytes between the socket and the driver."""

    def __init__(self, driver: Any, transport: Any) -> None:
        self._driver = driver
        self._transport = transport
        self._most_bytes = 0
        self._fault = ""
        self._received = 0
        self._head = b""  # an incomplete message head
        self._left = 0  # bytes of the current message
        self._raised: TooMuchFault | None = None

    def begin(self, most_bytes: int, fault: str) -> None:
        """Count from 0, up to this limit."""
        if self._transport.get_protocol() is not self:
            self._transport.set_protocol(self)
        self._most_bytes, self._fault, self._received = most_bytes, fault, 0

    def data_received(self, data: bytes) -> None:
        """Pass data on, or close the connection."""
        if self._raised is None:
            self._raised = self._check(data)
            if self._raised is None:
                self._driver.data_received(data)
            else:
                self._transport.abort()

    def _check(self, data: bytes) -> TooMuchFault | None:
        """Check the heads of the messages in this data; returns the fault of the first that is too large."""
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
            if kind in MESSAGES and length > self._most_bytes:
                size = f"the server sends an error or a notice of {length} bytes"
                return TooMuchFault(f"{size}, and {self._most_bytes} are read at most; have it say less")
            if kind not in NOT_KEPT:
                self._received += max(length, ROW_BYTES if kind == ROW else 0)
            if max(self._received, length) > self._most_bytes:
                return TooMuchFault(self._fault)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        ends: bool | None = self._driver.eof_received()
        return ends

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on, with the fault."""
        self._driver.connection_lost(self._raised or exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._driver.resume_writing()
