"""A slow interpreter of cron texts, made from the manual of Debian's cron alone: it looks at each minute or second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


class Fields(NamedTuple):
    """The numbers that each field allows, and whether the day must satisfy both of its fields."""

    seconds: set[int]
    minutes: set[int]
    hours: set[int]
    days: set[int]
    months: set[int]
    weekdays: set[int]
    needs_both: bool

    def fit(self, local: datetime) -> bool:
        """Whether a time of day on a clock fits."""
        weekday = local.isoweekday() % 7
        day, of_week = local.day in self.days, weekday in self.weekdays
        return (
            local.second in self.seconds
            and local.minute in self.minutes
            and local.hour in self.hours
            and local.month in self.months
            and (day and of_week if self.needs_both else day or of_week)
        )


def read(text: str) -> Fields:
    """Read five or six fields."""
    words = text.upper().split()
    words = words if len(words) == 6 else ["0", *words]
    seconds, minutes, hours, days, months, weekdays = (
        numbers(word, *bounds) for word, bounds in zip(words, BOUNDS, strict=True)
    )
    needs_both = words[3].startswith("*") or words[5].startswith("*")
    return Fields(seconds, minutes, hours, days, months, {day % 7 for day in weekdays}, needs_both)


def numbers(word: str, least: int, most: int) -> set[int]:
    """The numbers of one field."""
    found: set[int] = set()
    for part in word.split(","):
        ends, _, step = part.partition("/")
        first, _, last = ends.partition("-")
        if ends == "*":
            low, high = least, most
        else:
            low = number(first)
            high = number(last) if last else most if step else low
        found.update(range(low, high + 1, int(step or 1)))
    return found


def number(word: str) -> int:
    """A number, or that of a weekday."""
    return WEEKDAYS.index(word) if word in WEEKDAYS else int(word)


def moments(text: str, zone: ZoneInfo, begin: datetime, end: datetime) -> list[datetime]:
    """The moments after `begin` and until `end`, in UTC."""
    fields, words = read(text), text.split()
    if len(words) == 5 and not words[0].startswith("*") and not words[1].startswith("*"):
        found = at_fixed_times(fields, zone, begin, end)
    else:
        step = SECOND if len(words) == 6 else MINUTE
        found = by_the_clock(fields, zone, begin, end, step)
    return sorted(moment for moment in found if begin < moment <= end)


def by_the_clock(fields: Fields, zone: ZoneInfo, begin: datetime, end: datetime, step: timedelta) -> set[datetime]:
    """Each moment whose time on the zone's clock fits."""
    found, moment = set(), begin
    while moment <= end:
        if fields.fit(moment.astimezone(zone)):
            found.add(moment)
        moment += step
    return found


def at_fixed_times(fields: Fields, zone: ZoneInfo, begin: datetime, end: datetime) -> set[datetime]:
    """Each time of each day once: the first of two, and the end of the gap where the clock skips it."""
    found, local = set(), begin.astimezone(zone).replace(tzinfo=None) - timedelta(days=1)
    while local <= end.astimezone(zone).replace(tzinfo=None) + timedelta(days=1):
        if fields.fit(local):
            real = local
            while real.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != real:
                real += MINUTE
            found.add(real.replace(tzinfo=zone).astimezone(UTC))
        local += MINUTE
    return found
