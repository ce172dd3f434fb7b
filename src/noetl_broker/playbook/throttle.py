"""Reads `throttle`: how many jobs of a step, or of an iterator's item, run at a time or begin in a second."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from noetl_broker.playbook.keys import BOOLEAN, NAME, NUMBER, TEXT, Form, Key, Keys, integer
from noetl_broker.playbook.keywords import THROTTLE
from noetl_broker.playbook.model import Throttle
from noetl_broker.playbook.reader import Reading, TemplateSite
from noetl_broker.playbook.signals import KEY_VALUE
from noetl_broker.playbook.tasks import Declared

CODE: Final = "bad-throttle"
MOST_RATE: Final = 1_000_000.0  # a second
RATE_FORMS: Final = "10/s, 100/m, 5000/h or a number a second"
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/\s*(s|m|h|d))?", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
EXAMPLE: Final = "{name: stripe, concurrency: 5}"


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


NAME_HINT: Final = "write name: stripe; a template belongs into `key`"
JOBS: Final = integer(1, 1_000_000)
RATE: Final = Form(RATE_FORMS, parse_rate, (NUMBER, TEXT), f"write rate: 10/s; at most {MOST_RATE:.0f}/s")
KEYS: Final = Keys(
    model="ThrottleModel",
    about="How many jobs of a key run at a time, or begin in a second; over all executions, playbooks and workers.",
    word=THROTTLE,
    example=EXAMPLE,
    code=CODE,
    keys=(
        Key("name", NAME._replace(hint=NAME_HINT), "The limit; steps with the same name share it.", required="stripe"),
        Key("key", KEY_VALUE, "What it counts by, such as an account; a template."),
        Key("concurrency", JOBS, "Jobs of a key that run at a time."),
        Key("rate", RATE, "Jobs of a key that begin: 10/s, 100/m, 5000/h."),
        Key("burst", JOBS, "How many jobs of a key may begin at once."),
        Key("per_bucket", BOOLEAN, "Only for buckets: the numbers hold for each by itself."),
    ),
)


def read_throttle(
    reading: Reading, declared: Declared, site: TemplateSite, *, by_worker: bool, hint: str = ""
) -> Throttle | None:
    """Read the `throttle` of a step or of an iterator's task; report errors and give None if it has none.

    `by_worker`: a worker runs it. Otherwise `hint` says where it belongs.
    """
    raw, location = declared.lookup(THROTTLE)
    if raw is None:
        return None
    if not by_worker:
        message = f"`{THROTTLE}` of the step `{site.step}` has no meaning: no worker runs the step"
        reading.report.error(CODE, location, message, hint or "write it on steps that workers run", key=True)
        return None
    found = KEYS.read_mapping(reading, raw, location, site)
    if found is None or "name" not in found:
        return None
    if raw.get("concurrency") is None and raw.get("rate") is None:
        message = f"`{THROTTLE}` has neither `concurrency` nor `rate`"
        reading.report.error(CODE, location, message, f"write {THROTTLE}: {EXAMPLE}")
        return None
    if raw.get("burst") is not None and raw.get("rate") is None:
        reading.report.error(CODE, (*location, "burst"), "`burst` needs a `rate`", "add rate: 10/s, or remove it")
    if not found.get("per_bucket"):
        reading.limits[location] = THROTTLE
    return Throttle(**found)
