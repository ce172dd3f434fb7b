"""Reads `metadata.concurrency`: how many executions of one key run at once, and whether the others wait."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.keys import BOOL, BOOLEAN, KEY_BYTES, NUMBER, TEXT, Form, Key, Keys, integer, word
from noetl_broker.playbook.model import Concurrency
from noetl_broker.playbook.reader import Reading, TemplateSite, strings

SKIP, FAIL, QUEUE, CANCEL_RUNNING = "skip", "fail", "queue", "cancel_running"
KEY_FORMS: Final = f"a text of 1 to {KEY_BYTES} bytes, a number or a boolean"
KEY: Final[Location] = ("metadata", "concurrency")
_NAMED: Final = re.compile(r"\s*\{\{\s*(?:\w+\s*\.\s*)*(\w+)\s*\}\}\s*")


def slot_key(value: Any) -> str:
    """The key of a slot, as text: a number or a boolean is its JSON text. Raises ValueError."""
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if not isinstance(value, str) or not 0 < len(value.encode()) <= KEY_BYTES:
        raise ValueError(KEY_FORMS)
    return value


VALUE: Final = Form(KEY_FORMS, slot_key, (TEXT, NUMBER, BOOL), templates="parts", compiled=True)
KEYS: Final = Keys(
    model="ConcurrencyModel",
    about="How many executions of one key run at once.",
    word="concurrency",
    example='{key: "{{ workload.customer }}", limit: 1, on_limit: queue}',
    wrong="wrong-type",
    keys=(
        Key(
            "key",
            VALUE,
            "What the limit counts by, usually a template.",
            null=False,
        ),
        Key("limit", integer(1, 10_000), "How many run at once; default 1."),
        Key(
            "on_limit",
            word(QUEUE, SKIP, CANCEL_RUNNING, FAIL),
            "What happens to one more; default queue.",
        ),
        Key("per_bucket", BOOLEAN, "Only for buckets: each counts its own executions."),
    ),
)


def read_concurrency(reading: Reading, raw: Any, location: Location = KEY) -> Concurrency | None:
    """Read a `concurrency`; report the faults, and give None if it is missing or no mapping."""
    found = None
    if raw is not None:
        found = KEYS.read_mapping(reading, raw, location, TemplateSite(step=None, role="workload"))
    if found is None:
        return None
    if not found.get("per_bucket"):
        reading.limits[location] = KEYS.word
    key, where = raw.get("key"), (*location, "key")
    if not any(strings(key, where)) and VALUE.fits(key):
        message = f"`key` is {key!r:.80} for all executions, so the limit counts them all"
        hint = "leave it out, or write a template, such as {{ workload.customer }}"
        reading.report.warning("constant-key", where, message, hint)
    named = _NAMED.fullmatch(key) if isinstance(key, str) else None
    return Concurrency(**{"key": None, "limit": 1, "on_limit": QUEUE} | found, label=named[1] if named else "")
