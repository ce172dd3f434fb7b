"""Reads `metadata.concurrency`: how many executions of one key run at once, and whether the others wait."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.model import Concurrency, Raw
from noetl_broker.playbook.plain_values import KEY_BYTES, Range, read_integer
from noetl_broker.playbook.reader import Reading, TemplateSite, strings
from noetl_broker.template import Tree

SKIP, FAIL, QUEUE, CANCEL_RUNNING = "skip", "fail", "queue", "cancel_running"
ON_LIMIT: Final = (QUEUE, SKIP, CANCEL_RUNNING, FAIL)
CONCURRENCY_KEYS: Final = ("key", "limit", "on_limit")
LIMITS: Final = Range(1, 10_000)
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


def read_concurrency(reading: Reading, raw: Any, location: Location = KEY) -> Concurrency | None:
    """Read a `concurrency`; report the faults, and give None if it is missing or no mapping."""
    if raw is None:
        return None
    report = reading.report
    if not isinstance(raw, dict):
        hint = 'write concurrency: {key: "{{ workload.customer }}", limit: 1, on_limit: queue}'
        report.error("wrong-type", location, f"`concurrency` is {json_type_name(raw)}, not a mapping", hint)
        return None
    for key in raw:
        if key not in CONCURRENCY_KEYS:
            hint = report.did_you_mean(key, CONCURRENCY_KEYS)
            report.error("unknown-key", (*location, key), f"unknown key `{key}` in `concurrency`", hint, key=True)
    limit = raw.get("limit")
    found = 1 if limit is None else read_integer(reading, limit, (*location, "limit"), LIMITS)
    key, label = _read_key(reading, raw, (*location, "key"))
    return Concurrency(key=key, label=label, limit=found or 1, on_limit=_read_on_limit(reading, raw, location))


def _read_on_limit(reading: Reading, raw: Raw, location: Location) -> str:
    word = raw.get("on_limit")
    if word is None or word in ON_LIMIT:
        return word or QUEUE
    message, hint = f"`on_limit` is {word!r:.40}", f"write one of: {', '.join(ON_LIMIT)}"
    reading.report.error("bad-value", (*location, "on_limit"), message, hint)
    return QUEUE


def _read_key(reading: Reading, raw: Raw, location: Location) -> tuple[Tree | None, str]:
    """Compile the key, and give the name of the value that it reads, if it is exactly one value."""
    value = raw.get("key")
    if value is None:
        if "key" in raw:
            hint = "write a key, or leave it out: then the limit counts all executions of the playbook"
            reading.report.error("bad-value", location, f"`key` is null, not {KEY_FORMS}", hint)
        return None, ""
    if not any(strings(value, location)):
        try:
            slot_key(value)
        except ValueError:
            message = f"`key` is {value!r:.80}, not {KEY_FORMS}"
            reading.report.error("bad-value", location, message, f"write {KEY_FORMS}")
        else:
            message = f"`key` is {value!r:.80} for all executions, so the limit counts them all"
            hint = "leave it out, or write a template, such as {{ workload.customer }}"
            reading.report.warning("constant-key", location, message, hint)
    tree = reading.tree(value, location, TemplateSite(step=None, role="workload"))
    named = _NAMED.fullmatch(value) if isinstance(value, str) else None
    return tree, named[1] if named else ""
