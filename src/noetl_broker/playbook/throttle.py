"""Reads `throttle`: how many jobs of a step, or of an iterator's item, run at a time or begin in a second."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.keywords import THROTTLE
from noetl_broker.playbook.model import Raw, Throttle
from noetl_broker.playbook.plain_values import NAME_CHARS, Range, read_integer
from noetl_broker.playbook.reader import Reading, TemplateSite, strings
from noetl_broker.playbook.signals import KEY_FORMS, signal_key
from noetl_broker.playbook.tasks import NO_SURROUNDINGS, Declared, Surroundings

CODE: Final = "bad-throttle"
KEYS: Final = ("name", "key", "concurrency", "rate", "burst")
THROTTLED: Final = Range(1, 1_000_000)
MOST_RATE: Final = 1_000_000.0  # a second
RATE_FORMS: Final = "10/s, 100/m, 5000/h or a number a second"
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/\s*(s|m|h|d))?", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
EXAMPLE: Final = "write throttle: {name: stripe, concurrency: 5}"


def parse_rate(value: Any) -> float:
    """How many a second, from `10/s`, `100/m` or a number; raises ValueError."""
    if isinstance(value, str) and (found := _RATE.fullmatch(value.strip())):
        rate = float(found[1]) / _SECONDS[found[2] or "s"]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        rate = float(value)
    else:
        raise ValueError(RATE_FORMS)
    if not 0 < rate <= MOST_RATE or not math.isfinite(rate):
        raise ValueError(RATE_FORMS)
    return rate


def read_throttle(
    reading: Reading,
    name: str,
    declared: Declared,
    around: Surroundings = NO_SURROUNDINGS,
    *,
    by_worker: bool,
    hint: str = "",
) -> Throttle | None:
    """Read the `throttle` of a step or of an iterator's task; report errors and give None if it has none.

    `by_worker`: a worker runs it. Otherwise `hint` says where it belongs.
    """
    raw, location = declared.lookup(THROTTLE)
    if raw is None:
        return None
    if not by_worker:
        message = f"`{THROTTLE}` of the step `{name}` has no meaning: no worker runs the step"
        reading.report.error(CODE, location, message, hint or "write it on steps that workers run", key=True)
        return None
    if not isinstance(raw, dict):
        reading.report.error(CODE, location, f"`{THROTTLE}` of `{name}` is {json_type_name(raw)}", EXAMPLE)
        return None
    for key in raw:
        if key not in KEYS:
            hint = reading.report.did_you_mean(key, KEYS)
            reading.report.error(CODE, (*location, key), f"unknown key `{key}` in `{THROTTLE}`", hint, key=True)
    limit = _name(reading, raw, location)
    if limit is None or not _has_number(reading, raw, location):
        return None
    key, where = raw.get("key"), (*location, "key")
    if key is not None and not any(strings(key, where)):
        try:
            signal_key(key)
        except ValueError:
            message = f"`key` is {json_type_name(key)}, not {KEY_FORMS}"
            reading.report.error(CODE, where, message, "write what the throttle counts by")
    part = TemplateSite(step=name, role="fields", names=around.names)
    return Throttle(
        name=limit,
        key=None if key is None else reading.tree(key, where, part),
        concurrency=_integer(reading, raw, location, "concurrency"),
        rate=_rate(reading, raw, location),
        burst=_integer(reading, raw, location, "burst"),
    )


def _name(reading: Reading, raw: Raw, location: Location) -> str | None:
    name, where = raw.get("name"), (*location, "name")
    if isinstance(name, str) and 0 < len(name) <= NAME_CHARS and "{{" not in name:
        return name
    what = "has no `name`" if name is None else f"has a `name` that is no text of 1 to {NAME_CHARS} characters"
    if isinstance(name, str) and "{{" in name:
        what = "has a template as its `name`"
    reading.report.error(CODE, where, f"`{THROTTLE}` {what}", "write name: stripe; a template belongs into `key`")
    return None


def _has_number(reading: Reading, raw: Raw, location: Location) -> bool:
    if raw.get("concurrency") is None and raw.get("rate") is None:
        reading.report.error(CODE, location, f"`{THROTTLE}` has neither `concurrency` nor `rate`", EXAMPLE)
        return False
    if raw.get("burst") is not None and raw.get("rate") is None:
        reading.report.error(CODE, (*location, "burst"), "`burst` needs a `rate`", "add rate: 10/s, or remove it")
    return True


def _integer(reading: Reading, raw: Raw, location: Location, key: str) -> int | None:
    value = raw.get(key)
    return None if value is None else read_integer(reading, value, (*location, key), THROTTLED, CODE)


def _rate(reading: Reading, raw: Raw, location: Location) -> float | None:
    value = raw.get("rate")
    if value is None:
        return None
    try:
        return parse_rate(value)
    except ValueError:
        shown = repr(value) if isinstance(value, str | int | float) else json_type_name(value)
        message = f"`rate` is {shown:.80}, not {RATE_FORMS}"
        reading.report.error(CODE, (*location, "rate"), message, f"write rate: 10/s; at most {MOST_RATE:.0f}/s")
        return None
