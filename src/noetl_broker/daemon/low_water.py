"""From which mail on the inbox is read, so that the rows of mail long decided are not walked over again and again.

While somebody holds an old snapshot, no vacuum takes them away, and a claim from the beginning costs more with each of
them. The mark only saves that walk: what lies below it (committed late, or left by a broker that rolled back) is found
by looks from the beginning. These come before every sleep and some times a second; once they are dear, they take two
hundredths of the time.
"""

from __future__ import annotations

import time
from typing import Final

PAUSE_SECONDS: Final = 0.1  # between looks from the beginning while there is work, at least
PAUSE_FACTOR: Final = 50  # times what a look took
CHEAP_SECONDS: Final = 0.005


class LowWater:
    """The mark of one process; 0 is the beginning."""

    def __init__(self) -> None:
        """Nothing is known: the first look is one from the beginning."""
        self.mark = 0
        self._due = 0.0
        self._cost = 0.0

    @property
    def seconds_left(self) -> float:
        """Until the next look from the beginning; 0 where it is due, or costs nothing worth saving."""
        return 0.0 if self._cost < CHEAP_SECONDS else max(self._due - time.monotonic(), 0.0)

    def start(self) -> int:
        """From which mail on the next claim reads."""
        if time.monotonic() < self._due:
            return self.mark
        self._wait()  # no second lane does the same meanwhile
        return 0

    def looked(self, first: int | None, start: int, seconds: float) -> None:
        """A look from `start` on took so long and found this mail first; nothing before that is left."""
        if not start:
            self._cost = seconds
            self._wait()
        if first is not None:
            self.mark = max(self.mark, first) if start else first

    def left(self, first: int) -> None:
        """Mail from here on was claimed and stays in the inbox."""
        self.mark = min(self.mark, first)

    def _wait(self) -> None:
        self._due = time.monotonic() + max(PAUSE_SECONDS, self._cost * PAUSE_FACTOR)
