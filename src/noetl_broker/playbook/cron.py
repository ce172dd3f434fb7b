"""The nominal moments of a schedule: a cron text in a time zone, or a fixed time span.

The library cronsim reads the cron text. It follows Debian's cron where clocks change. A fixed time in a skipped hour
becomes the end of that hour. A fixed time in a repeated hour counts once. A text whose minute or hour begins with `*`,
and one with six fields, follows the clock of the zone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

# The names of Debian's cron; `@reboot` is no moment.
NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
LONGEST_CRON: Final = 200  # characters
LONGEST_ZONE: Final = 64  # characters
SHORTEST_SPAN, LONGEST_SPAN = timedelta(seconds=1), timedelta(days=3660)
FORMS: Final = "write five fields (minute hour day month weekday), six with seconds first, or @daily"
SOME_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)


class TimingError(ValueError):
    """A cron text, a time zone or a span that gives no moments; the message says why and what to write."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron text in an IANA time zone; make it with `read_cron`."""

    text: str
    zone: tzinfo

    def moments(self, after: datetime) -> Iterator[datetime]:
        """The moments after this one in order, in UTC. They end if the next 50 years have none."""
        last = after.astimezone(UTC)
        with contextlib.suppress(OverflowError):  # after the year 9999
            for found in CronSim(NICKNAMES.get(self.text.lower(), self.text), last.astimezone(self.zone)):
                moment = found.astimezone(UTC)
                if moment > last:  # a start in a repeated hour finds moments of its first pass
                    yield moment
                    last = moment

    def local(self, moment: datetime) -> datetime:
        """The moment with the time of day in the zone."""
        return moment.astimezone(self.zone)

    def __str__(self) -> str:
        """Describe when it is: At 02:00 every day (Europe/Berlin)."""
        fields = CronSim(NICKNAMES.get(self.text.lower(), self.text), SOME_DAY)
        return f"{fields.explain()} ({self.zone})"


@dataclass(frozen=True, slots=True)
class Every:
    """A fixed span, counted from one of its moments in both directions."""

    span: timedelta
    anchor: datetime

    def moments(self, after: datetime) -> Iterator[datetime]:
        """The moments after this one in order, in UTC."""
        number = (after - self.anchor) // self.span + 1
        with contextlib.suppress(OverflowError):  # after the year 9999
            while True:
                yield self.anchor.astimezone(UTC) + number * self.span
                number += 1

    def local(self, moment: datetime) -> datetime:
        """The moment in UTC."""
        return moment.astimezone(UTC)

    def __str__(self) -> str:
        """Describe when it is: every 90 s."""
        return f"every {self.span.total_seconds():g} s"


Timing = Cron | Every


def read_cron(text: str, zone: str = "UTC") -> Cron:
    """Read a cron text and the name of its time zone. Raises TimingError."""
    words = " ".join(text.split())
    if len(words) > LONGEST_CRON:
        raise TimingError(f"the cron text has {len(words)} characters; it may have {LONGEST_CRON}")
    if words.startswith("@") and words.lower() not in NICKNAMES:
        raise TimingError(f"the cron text {words!r} is unknown; known are {', '.join(NICKNAMES)}")
    try:
        CronSim(NICKNAMES.get(words.lower(), words), SOME_DAY)
    except CronSimError as error:
        reason = str(error)
        raise TimingError(f"the cron text {words!r} is wrong: {reason[:1].lower()}{reason[1:]}; {FORMS}") from None
    return Cron(words, read_zone(zone))


@lru_cache(maxsize=1000)
def read_zone(name: str) -> tzinfo:
    """The time zone of this IANA name. Raises TimingError."""
    if name in {"UTC", "Etc/UTC"}:
        return UTC  # cronsim is quickest with it
    try:
        return ZoneInfo(name[:LONGEST_ZONE])
    except (ValueError, OSError, KeyError):  # a path out of the database, a folder of it, an unknown name
        message = f"there is no time zone {name[:LONGEST_ZONE]!r}; write an IANA name, such as Europe/Berlin"
        raise TimingError(message) from None


def read_every(span: timedelta, anchor: datetime) -> Every:
    """A span and one of its moments. Raises TimingError if the span is too short or too long."""
    if not SHORTEST_SPAN <= span <= LONGEST_SPAN:
        raise TimingError(f"every {span.total_seconds():g} s is not between 1 s and {LONGEST_SPAN.days} days")
    return Every(span, anchor)
