"""What reading one document may cost: counted, because a document of a few kilobytes can ask for hours of work.

The count depends on the document alone, so the answer is the same on every machine. The limit in seconds is for what no
count foresees; it counts the processor's time, which a busy machine does not use up.
"""

from __future__ import annotations

import threading
import time

from noetl_broker.errors import BrokerError

LOOK_EVERY = 5_000  # units between two looks at the clock: some milliseconds
LONGEST_PAUSE_SECONDS = 0.05
CHARS = 64  # of the names on the way to a value, which cost as much as a value


class TooMuchWork(Exception):
    """A document asks for more than it may; the text says of what."""


class Abandoned(BrokerError):
    """Whoever wanted the document read is stopping."""


class Work:
    """The work that is left for one document, in units of about a microsecond."""

    __slots__ = ("_left", "_look_at", "_looked_at", "_most", "_most_seconds", "_stopping", "_until")

    def __init__(self, most: int, most_seconds: float, stopping: threading.Event | None = None) -> None:
        """Nothing is spent yet; `most_seconds` are of the calling thread's time on the processor.

        With `stopping` it is done beside an event loop: it pauses again and again, and ends when that is set.
        """
        self._most, self._left = most, most
        self._most_seconds = most_seconds
        self._looked_at = time.thread_time()
        self._until = self._looked_at + most_seconds
        self._look_at = max(most - LOOK_EVERY, 0)
        self._stopping = stopping

    def spend(self, units: int = 1) -> None:
        """Count some work before it is done; raises TooMuchWork past a limit."""
        self._left -= units
        if self._left < self._look_at:
            self._look()

    def _look(self) -> None:
        self._look_at = max(self._left - LOOK_EVERY, 0)
        if self._left < 0:
            raise TooMuchWork(f"{self._most:,} steps of work")
        now = time.thread_time()
        if now > self._until:
            raise TooMuchWork(f"{self._most_seconds:g} s")
        if self._stopping is not None:
            # Python runs one thread at a time: the event loop has every other moment for itself.
            if self._stopping.wait(min(now - self._looked_at, LONGEST_PAUSE_SECONDS)):
                raise Abandoned("the program stops")
            self._looked_at = time.thread_time()


def weight_of(value: object, chars: int = 0) -> int:
    """How much a value of a document costs whoever walks over it; `chars` are those of the names above it."""
    if isinstance(value, dict):
        return 1 + sum(weight_of(item, chars + len(key)) for key, item in value.items())
    if isinstance(value, list):
        return 1 + sum(weight_of(item, chars) for item in value)
    return 1 + chars // CHARS
