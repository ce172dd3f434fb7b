"""Bounds the work of reading one document: a few kilobytes can ask for hours.

The work is counted in units that depend on the document alone, so every machine gives the same answer. A limit in
seconds of processor time covers work that is not counted.
"""

from __future__ import annotations

import threading
import time

from noetl_broker.errors import BrokerError

UNITS_BETWEEN_CHECKS = 5_000  # some milliseconds
LONGEST_PAUSE_SECONDS = 0.05
CHARS = 64  # of the names above a value that cost as much as the value


class TooMuchWork(Exception):
    """Reading a document takes more work than it may; the text names the limit."""


class Abandoned(BrokerError):
    """The program stops, so the document is not read."""


class Work:
    """The remaining work of one document, in units of about a microsecond."""

    __slots__ = ("_checked_at", "_left", "_most", "_most_seconds", "_next_check", "_stopping", "_until")

    def __init__(self, most: int, most_seconds: float, stopping: threading.Event | None = None) -> None:
        """`most_seconds` are of the calling thread's processor time.

        With `stopping` the work runs in a thread beside an event loop. It pauses often, and ends when the event is set.
        """
        self._most, self._left = most, most
        self._most_seconds = most_seconds
        self._checked_at = time.thread_time()
        self._until = self._checked_at + most_seconds
        self._next_check = max(most - UNITS_BETWEEN_CHECKS, 0)
        self._stopping = stopping

    def spend(self, units: int = 1) -> None:
        """Count some work before it is done; raises TooMuchWork past a limit."""
        self._left -= units
        if self._left < self._next_check:
            self._check_limits()

    def _check_limits(self) -> None:
        self._next_check = max(self._left - UNITS_BETWEEN_CHECKS, 0)
        if self._left < 0:
            raise TooMuchWork(f"{self._most:,} steps of work")
        now = time.thread_time()
        if now > self._until:
            raise TooMuchWork(f"{self._most_seconds:g} s")
        if self._stopping is not None:
            # Python runs one thread at a time: pause, so that the event loop runs half of the time.
            if self._stopping.wait(min(now - self._checked_at, LONGEST_PAUSE_SECONDS)):
                raise Abandoned("the program stops")
            self._checked_at = time.thread_time()


def weight_of(value: object, chars: int = 0) -> int:
    """Give the cost of a walk over a value of a document; `chars` counts the names above it."""
    if isinstance(value, dict):
        return 1 + sum(weight_of(item, chars + len(key)) for key, item in value.items())
    if isinstance(value, list):
        return 1 + sum(weight_of(item, chars) for item in value)
    return 1 + chars // CHARS
