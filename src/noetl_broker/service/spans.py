"""Time spans and moments as people write them, in filters."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, tzinfo

from noetl_broker.template.durations import parse_duration

_LONG_UNITS = re.compile(r"(?<=[0-9])(sec|min)")
_NUMBER = re.compile(r"[0-9.]*")  # `20260131` is a moment


def parse_span(text: str) -> float | None:
    """Give the seconds of a duration; None if the text is none, is a number alone, or more than a hundred years."""
    written = _LONG_UNITS.sub(lambda unit: unit[0][0], "".join(text.lower().split()))
    if _NUMBER.fullmatch(written) or not written.isascii():
        return None
    try:
        return parse_duration(written.upper() if written.startswith("p") else written)
    except ValueError:
        return None


def parse_since(text: str, zone: tzinfo = UTC) -> datetime | float:
    """The seconds of a span before now, or the moment of an ISO 8601 text; one without an offset is of the zone.

    Raises ValueError for any other text.
    """
    seconds = parse_span(text)
    if seconds is not None:
        return seconds
    try:
        return _in_zone(datetime.fromisoformat(text.strip()), zone)
    except (ValueError, OverflowError):
        examples = "a span (90s, 30min, 2h30m, 7d, 2w) nor a moment (2026-01-31, 2026-01-31T08:00Z)"
        raise ValueError(f"{text!r} is neither {examples}") from None


def parse_until(text: str, zone: tzinfo = UTC) -> datetime | float:
    """Reads a time as `parse_since` does, but a date is the last moment of its day."""
    try:
        day = datetime.combine(date.fromisoformat(text.strip()), time.max)
    except ValueError:
        return parse_since(text, zone)
    try:
        return _in_zone(day, zone)
    except OverflowError:  # the last day of the calendar, west of Greenwich
        return day.replace(tzinfo=UTC)


def _in_zone(moment: datetime, zone: tzinfo) -> datetime:
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).astimezone(UTC)
