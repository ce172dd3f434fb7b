"""Times, time spans, values, ids and lists of names as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
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


def decider(decision: Mapping[str, Any]) -> str:
    """Who decided an approval, and the name beside it: `login:ann (Ann)`."""
    beside = decision.get("decided_by")
    return f"{decision.get('by')}" + (f" ({beside})" if beside else "")


def join_names(names: Iterable[str], *, most: int = 12) -> str:
    """Join names with commas and `and`; at most `most` of them."""
    shown = list(names)
    if len(shown) > most:
        shown = [*shown[:most], f"{len(shown) - most} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


# Names of ids, and of lists of ids, in documents that the broker makes; others end in _id or _ids.
_ID_NAMES = frozenset({
    "recovered_as", "ended_by", "example", "forked_from", "holders", "source",
})  # fmt: skip
# Of such documents, what people gave: it stays as it is.
_GIVEN_NAMES = frozenset({
    "args", "data", "details", "form", "inputs", "item", "payload", "result", "value", "values", "workload",
})  # fmt: skip


def ids_as_text(document: Any) -> Any:
    """Give a document that the broker made with each id as text; values that people gave are as they were.

    JavaScript and jq round numbers above 2^53.
    """
    if isinstance(document, Mapping):
        return {name: _named_value(str(name), value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return [ids_as_text(each) for each in document]
    return document


def _named_value(name: str, value: Any) -> Any:
    if name in _GIVEN_NAMES:
        return value
    if name not in _ID_NAMES and not name.endswith(("_id", "_ids")):
        return ids_as_text(value)
    if isinstance(value, list | tuple):
        return [_named_value(name, each) for each in value]
    return str(value) if type(value) is int else ids_as_text(value)


OF_SCHEDULE = ""  # the path of the slots of schedules; their key is the name


def slot_name(path: str, key: str, label: str) -> str:
    """What a slot is for: `customer 7`, `schedule nightly`, or `playbook reports/daily`."""
    if path == OF_SCHEDULE:
        return f"schedule {key}"
    return f"{label} {key}".strip() if key else f"playbook {path}"


def rate_text(rate: float) -> str:
    """A rate in the largest unit in which it is at least one: `10/s`, `90/m`."""
    for seconds, unit in ((1, "s"), (60, "m"), (3600, "h")):
        if rate * seconds >= 1:
            return f"{rate * seconds:.6g}/{unit}"
    return f"{rate * 86400:.6g}/d"


def numbers_text(numbers: Any) -> str:
    """The numbers of a throttle for people: `5 at a time, 10/s, burst 20`."""
    parts = [] if numbers["concurrency"] is None else [f"{numbers['concurrency']} at a time"]
    if numbers["rate"] is not None:
        parts.append(rate_text(numbers["rate"]))
    if numbers["burst"] is not None:
        parts.append(f"burst {numbers['burst']}")
    return ", ".join(parts)
