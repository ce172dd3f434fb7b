"""A connection that is closed when the server sends more than a limit, before the driver has it in memory.

The driver buffers a message until it is complete, and then copies it. So the length at the start of each message is
read before the driver gets it.
"""

from __future__ import annotations

import time
from typing import Any

import asyncpg

from noetl_broker.worker.meter import Meter

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
        self._meter = _RowMeter(protocol, transport)
        self.opened_at = time.monotonic()

    def bound(self, most_bytes: int, fault: str) -> None:
        """Close the connection when the server has sent so many bytes from now on.

        The driver then raises ConnectionDoesNotExistError, and its cause is TooMuchFault with this `fault`. Messages
        that the driver does not keep are limited one by one.
        """
        self._meter.bound(most_bytes, fault)


class _RowMeter(Meter):
    """Counts the bytes of a connection, and reads the heads of its messages."""

    def __init__(self, driver: Any, transport: Any) -> None:
        super().__init__(driver, transport)
        self._most_bytes = 0
        self._advice = ""
        self._received = 0
        self._head = b""  # an incomplete message head
        self._left = 0  # bytes of the current message

    def bound(self, most_bytes: int, advice: str) -> None:
        """Count from 0, up to this limit."""
        self.begin()
        self._most_bytes, self._advice, self._received = most_bytes, advice, 0

    def check(self, data: bytes) -> TooMuchFault | None:
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
                return TooMuchFault(self._advice)
