"""From which mail on the inbox is read, so that the rows of mail long decided are not walked over again and again.

While somebody holds an old snapshot, no vacuum takes them away, and a claim from the beginning costs more with each of
them. The mark only saves that walk. Mail gets its number before its commit, so some comes to light later than what has
higher numbers: claims begin a good bit before the mark; after one that was full, behind what it took, for rows that our
own lanes hold cost each claim as much as the dead. What lies below even that (of a large transaction, or left by a
broker that rolled back) is found by looks from the beginning. They come before every sleep and twice a second at least;
once they are dear, they take one four-hundredth of the time, which no p99 shows, and come every ten seconds at least:
then no claim begins behind another.
"""

from __future__ import annotations

import time
from typing import Final

PAUSE_SECONDS: Final = 0.1  # between looks from the beginning while there is work, at least
PAUSE_FACTOR: Final = 400  # times what a look took
LONGEST_PAUSE_SECONDS: Final = 10.0
CHEAP_SECONDS: Final = 0.005
CHEAP_PAUSE_SECONDS: Final = 0.5  # the longest, while looks are cheap
MARGIN: Final = 500  # mails before the mark; each claim walks over their rows
WIDE_MARGIN: Final = 2_000  # where looks from the beginning are dear, and so seldom


class LowWater:
    """The mark of one process; 0 is the beginning."""

    def __init__(self) -> None:
        """Nothing is known: the first look is one from the beginning."""
        self._mark = 0
        self._past = 0  # where the next claim may begin, behind the last full one; 0: at the mark
        self._due = 0.0
        self._seconds = 0.0  # that the last look from the beginning took
        self._cost = 0.0  # of one, by the last two

    @property
    def near(self) -> int:
        """From which mail on is read whatever is not long late."""
        return max(self._mark - (MARGIN if self._cost < CHEAP_SECONDS else WIDE_MARGIN), 0)

    @property
    def seconds_left(self) -> float:
        """Until the next look from the beginning; 0 where it is due, or costs nothing worth saving."""
        return 0.0 if self._cost < CHEAP_SECONDS else max(self._due - time.monotonic(), 0.0)

    def start(self) -> int:
        """From which mail on the next claim reads."""
        if time.monotonic() < self._due:
            return max(self.near, self._past)
        self._wait()  # no second lane does the same meanwhile
        return 0

    def looked(self, first: int | None, start: int, seconds: float, *, past: int = 0) -> None:
        """A look from `start` on took so long to walk there and found this mail first; nothing before that is left.

        `past`: behind the last mail that a full claim took. Not believed where it began behind what was left meanwhile.
        """
        if start > max(self._mark, self._past):
            return
        if not start:
            # One alone may have waited for something else, as for the plans of a new session.
            self._cost, self._seconds = min(seconds, self._seconds), seconds
            self._wait()
        if first is not None:
            self._mark = max(self._mark, first) if start else first
        self._past = past if self._cost < CHEAP_SECONDS else 0

    def left(self, first: int) -> None:
        """Mail from here on was claimed and stays in the inbox."""
        self._mark, self._past = min(self._mark, first), 0

    def _wait(self) -> None:
        longest = CHEAP_PAUSE_SECONDS if self._cost < CHEAP_SECONDS else LONGEST_PAUSE_SECONDS
        pause = min(max(self._cost * PAUSE_FACTOR, PAUSE_SECONDS), longest)
        self._due = time.monotonic() + pause
