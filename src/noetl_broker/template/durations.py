"""Durations and moments, as people write them in a playbook and in templates.

A duration is a number of seconds, `90s`, `2h30m`, `3d`, `2w`, or ISO 8601 such as `P3DT12H`. A moment is RFC 3339, such
as `2026-03-01T09:00:00Z`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

DURATION_FORMS = "a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H"
MOMENT_FORMS = "RFC 3339, such as 2026-03-01T09:00:00Z"
TIMEOUT_FORMS = f"{DURATION_FORMS}, from 0.001 s to 365 days"
LONGEST_SECONDS = 100 * 366 * 86_400  # a hundred years
LEAST_TIMEOUT, LONGEST_TIMEOUT = 0.001, 365 * 86_400.0
_UNITS = {"w": 604_800.0, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_SHORT = re.compile(
    r"(?:(\d+(?:\.\d+)?)w)?(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?"
)
_ISO = re.compile(
    r"P(?:(\d+(?:\.\d+)?)W)?(?:(\d+(?:\.\d+)?)D)?(?:T(?:(\d+(?:\.\d+)?)H)?(?:(\d+(?:\.\d+)?)M)?(?:(\d+(?:\.\d+)?)S)?)?"
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)")
LONGEST_TEXT = 64


def parse_duration(value: Any) -> float:
    """The seconds of a duration, from 0 to LONGEST_SECONDS; raises ValueError for anything else."""
    seconds = seconds_of(value)
    if seconds is None or not 0 <= seconds <= LONGEST_SECONDS:
        raise ValueError(f"a duration is {DURATION_FORMS}, up to 100 years")
    return seconds


def parse_timeout(value: Any) -> float:
    """The seconds of a time limit, from a millisecond to a year; raises ValueError for anything else."""
    seconds = seconds_of(value)
    if seconds is None or not LEAST_TIMEOUT <= seconds <= LONGEST_TIMEOUT:
        raise ValueError(f"a timeout is {TIMEOUT_FORMS}")
    return seconds


def seconds_of(value: Any) -> float | None:
    """The seconds of a duration, without limits; None for anything else."""
    if isinstance(value, int | float):
        return None if isinstance(value, bool) else float(min(value, LONGEST_SECONDS + 1))
    text = value.strip() if isinstance(value, str) and len(value) <= LONGEST_TEXT else ""
    if _NUMBER.fullmatch(text):
        return float(text)
    found = _SHORT.fullmatch(text) or _ISO.fullmatch(text)
    parts = found.groups() if found is not None else ()
    if not any(part is not None for part in parts) or text.endswith("T"):
        return None
    return sum(float(part) * unit for part, unit in zip(parts, _UNITS.values(), strict=True) if part is not None)


def parse_shift(value: Any) -> float:
    """The seconds of a duration with a sign, such as `-1d`; raises ValueError for anything else."""
    if isinstance(value, str) and value.strip()[:1] in {"-", "+"}:
        sign, text = value.strip()[0], value.strip()[1:]
        return parse_duration(text) * (-1 if sign == "-" else 1)
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        return -parse_duration(-value)
    return parse_duration(value)


def parse_moment(value: Any) -> datetime:
    """The moment in UTC; raises ValueError for anything but RFC 3339."""
    text = value.strip() if isinstance(value, str) and len(value) <= LONGEST_TEXT else ""
    try:
        found = _MOMENT.fullmatch(text)
        text = found[0] if found is not None else ""
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"a moment is {MOMENT_FORMS}") from None


def moment_text(moment: datetime) -> str:
    """The moment in RFC 3339 with microseconds, in UTC: `2026-03-01T09:00:00.000000Z`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def after(moment: datetime, seconds: float) -> datetime:
    """The moment so many seconds later, at most the last one that a database of ours holds."""
    try:
        return min(moment + timedelta(seconds=seconds), LAST_MOMENT)
    except OverflowError:
        return LAST_MOMENT


LAST_MOMENT = datetime(9000, 1, 1, tzinfo=UTC)
