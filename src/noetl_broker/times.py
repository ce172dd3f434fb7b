"""How moments and spans of time are told to people."""

from __future__ import annotations

from datetime import UTC, datetime

MINUTE, HOUR, DAY = 60, 3600, 86_400  # seconds


def moment(at: datetime) -> str:
    """Give a moment to the millisecond, in UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%S.") + f"{at.microsecond // 1000:03}"


def clock(at: datetime) -> str:
    """Give the time of day to the second, in UTC."""
    return at.astimezone(UTC).strftime("%H:%M:%S")


def span(seconds: float) -> str:
    """Give a time span as people say it: 250 ms, 3.2 s, 4 min 10 s, 2 h 5 min, 3 d 4 h."""
    if abs(seconds) < 1:
        return f"{round(seconds * 1000)} ms"
    if abs(seconds) < MINUTE - 0.05:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, smaller, name, small_name in ((DAY, HOUR, "d", "h"), (HOUR, MINUTE, "h", "min"), (MINUTE, 1, "min", "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // smaller} {small_name}"
    return f"{whole} s"
