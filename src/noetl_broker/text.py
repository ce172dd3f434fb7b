"""Times, time spans, values and lists of names as text for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

MINUTE, HOUR, DAY = 60, 3600, 86_400  # seconds


def moment(at: datetime) -> str:
    """Give a time to the millisecond, in UTC: 2026-01-31 08:00:00.000Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.") + f"{at.microsecond // 1000:03}Z"


def clock(at: datetime) -> str:
    """Give the time of day to the second, in UTC."""
    return at.astimezone(UTC).strftime("%H:%M:%S")


def span(seconds: float) -> str:
    """Give a time span: 250 ms, 3.2 s, 4 min 10 s, 2 h 5 min, 3 d 4 h."""
    if abs(seconds) < 1:
        return f"{round(seconds * 1000)} ms"
    if abs(seconds) < MINUTE - 0.05:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, smaller, name, small_name in ((DAY, HOUR, "d", "h"), (HOUR, MINUTE, "h", "min"), (MINUTE, 1, "min", "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // smaller} {small_name}"
    return f"{whole} s"


LONGEST_VALUE = 160  # characters of a value in a sentence


def short_json(value: Any, *, longest: int = LONGEST_VALUE) -> str:
    """Give a value as JSON on one line, shortened if it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def shorten(value: Any) -> Any:
    """Give a value for a program: itself, or the beginning of its JSON if it is large."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return value if len(text) <= LONGEST_CUT else text[: LONGEST_CUT - 1] + "…"


LONGEST_CUT = 4000  # characters of a value for a program


def join_names(names: Iterable[str], *, most: int = 12) -> str:
    """Join names with commas and `and`; at most `most` of them."""
    shown = list(names)
    if len(shown) > most:
        shown = [*shown[:most], f"{len(shown) - most} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


OF_SCHEDULE = ""  # the path of the places of schedules; their key is the name


def place_name(path: str, key: str, label: str) -> str:
    """What a place is for: `customer 7`, `schedule nightly`, or `playbook reports/daily`."""
    if path == OF_SCHEDULE:
        return f"schedule {key}"
    return f"{label} {key}".strip() if key else f"playbook {path}"


def rate_text(rate: float) -> str:
    """A rate in the largest unit in which it is at least one: `10/s`, `90/m`."""
    for seconds, unit in ((1, "s"), (60, "m"), (3600, "h")):
        if rate * seconds >= 1:
            return f"{rate * seconds:.6g}/{unit}"
    return f"{rate * 86400:.6g}/d"
