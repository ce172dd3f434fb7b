"""Where a claim begins to read the inbox, so that it does not walk over dead rows again and again.

While an old snapshot is open, vacuum cannot remove decided mail, and a full scan becomes slower. The cursor only saves
time. Mail gets its id before its commit, so a lower id may appear later. Three rules find it:

- A claim begins a margin of mails before the cursor. After a full claim the next one begins behind it, because our own
  lanes hold those rows.
- A full scan runs before every sleep and at least every 0.5 s.
- Slow full scans take at most one four-hundredth of the time, and run at least every 10 s. Then no claim
  begins behind another.
"""

from __future__ import annotations

import time
from typing import Final

MIN_PAUSE_SECONDS: Final = 0.1  # between two full scans while there is work
PAUSE_FACTOR: Final = 400  # times the duration of a full scan
MAX_PAUSE_SECONDS: Final = 10.0
FAST_SECONDS: Final = 0.005
MAX_FAST_PAUSE_SECONDS: Final = 0.5  # while full scans are fast
MARGIN: Final = 500  # mails before the cursor; each claim walks over their rows
WIDE_MARGIN: Final = 2_000  # while full scans are slow, and so seldom


class ClaimCursor:
    """The cursor of one process, a mail id; 0 is the beginning."""

    def __init__(self) -> None:
        """The first scan is a full one."""
        self._mail_id = 0
        self._behind = 0  # the next claim may begin here, behind the last full claim; 0: at the cursor
        self._due = 0.0
        self._last_seconds = 0.0  # of the last full scan
        self._cost = 0.0  # the shorter of the last two full scans

    @property
    def near(self) -> int:
        """The mail id from which on all mail is found, except mail that was committed very late."""
        return max(self._mail_id - (MARGIN if self._is_fast else WIDE_MARGIN), 0)

    @property
    def seconds_to_full_scan(self) -> float:
        """Until the next full scan; 0 when it is due, or so fast that it need not wait."""
        return 0.0 if self._is_fast else max(self._due - time.monotonic(), 0.0)

    def next_start(self) -> int:
        """The mail id from which on the next claim reads."""
        if time.monotonic() < self._due:
            return max(self.near, self._behind)
        self._schedule()  # now, so that no other lane scans at the same time
        return 0

    def scanned(self, first: int | None, start: int, seconds: float, *, behind: int = 0) -> None:
        """Record a scan from `start` on: it took so long, and `first` is the first mail that it found.

        `behind`: the id behind the last mail that a full claim took. A scan is ignored when a rewind has passed it.
        """
        if start > max(self._mail_id, self._behind):
            return
        if not start:
            # A single slow scan may have waited for something else, such as the plans of a new session.
            self._cost, self._last_seconds = min(seconds, self._last_seconds), seconds
            self._schedule()
        if first is not None:
            self._mail_id = max(self._mail_id, first) if start else first
        self._behind = behind if self._is_fast else 0

    def rewind(self, first: int) -> None:
        """Mail from this id on was claimed and is still in the inbox."""
        self._mail_id, self._behind = min(self._mail_id, first), 0

    @property
    def _is_fast(self) -> bool:
        return self._cost < FAST_SECONDS

    def _schedule(self) -> None:
        longest = MAX_FAST_PAUSE_SECONDS if self._is_fast else MAX_PAUSE_SECONDS
        self._due = time.monotonic() + min(max(self._cost * PAUSE_FACTOR, MIN_PAUSE_SECONDS), longest)
