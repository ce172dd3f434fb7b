"""Reads what becomes of failed items of an iterator: `tolerate`, and `catch` and `retry` of its task."""

from __future__ import annotations

import re
from typing import Any

from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.keywords import ERROR
from noetl_broker.playbook.model import ItemCatch, Retry, Tolerance
from noetl_broker.playbook.reader import Reading, TemplateSite
from noetl_broker.playbook.retries import read_retry
from noetl_broker.playbook.tasks import Declared

CODE = "bad-iterator"
CATCH_CODE = "bad-catch"
MOST_TOLERATED = 1_000_000
PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%")
ITEM_CATCH_KEYS = frozenset({"when", "result"})
EXPANDING_WORDS = ("retry", "timeout", "catch", "compensate", "throttle")  # of a task


def parse_tolerance(value: object) -> Tolerance:
    """Give how many items may fail. Raises ValueError for anything but a count or a percentage as text."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOLERATED:
        return Tolerance(count=value)
    found = PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or float(found[1]) > 100:  # noqa: PLR2004 - all of them
        raise ValueError(value)
    return Tolerance(percent=float(found[1]))


def read_tolerance(reading: Reading, value: Any, location: Location, name: str) -> Tolerance | None:
    """Read `tolerate` of the iterator `name`; None if it is wrong (then an error is reported)."""
    try:
        return parse_tolerance(value)
    except ValueError:
        shown = repr(value)[:80] if isinstance(value, str | int | float) else json_type_name(value)
        message = f"`tolerate` of the iterator `{name}` is {shown}, not a number of items or a percentage"
        hint = f"write tolerate: 5 (at most {MOST_TOLERATED:,}), or tolerate: 20% (at most 100%)"
        reading.report.error(CODE, location, message, hint)
        return None


def expands(task: Declared) -> bool:
    """Whether the broker runs each item of this task by itself, because the task says what becomes of one item."""
    # The `timeout` of an http request is its own.
    return any(task.lookup(word)[0] is not None and word not in task.own for word in EXPANDING_WORDS)


def read_item_retry(reading: Reading, name: str, task: Declared, names: frozenset[str]) -> Retry | None:
    """Read the `retry` of a task; its conditions find the element too."""
    return read_retry(reading, name, *task.lookup("retry"), names=names)


def read_item_catch(reading: Reading, name: str, task: Declared, names: frozenset[str]) -> tuple[ItemCatch, ...]:
    """Read the `catch` of a task: entries of a condition (None: always) and a result."""
    raw, location = task.lookup("catch")
    if raw is None:
        return ()
    entries = raw if isinstance(raw, list) else [raw]
    part = TemplateSite(step=name, role="catch", names=names | {ERROR})
    found: list[ItemCatch] = []
    for index, entry in enumerate(entries):
        where = (*location, index) if isinstance(raw, list) else location
        if not isinstance(entry, dict):
            message = f"an entry of `catch` in the task of the iterator `{name}` is {json_type_name(entry)}"
            reading.report.error(CATCH_CODE, where, message, "write {when: …, result: …}")
            continue
        for key in entry:
            if key in {"step", "then", "next", "name"}:
                message = f"`{key}` in the `catch` of the task of the iterator `{name}`: an item goes to no step"
                hint = "write result: with the value of the item, or put catch on the step"
                reading.report.error(CATCH_CODE, (*where, key), message, hint, key=True)
            elif key not in ITEM_CATCH_KEYS:
                reading.report.unknown_key((*where, key), f"unknown key `{key}` in `catch`", ITEM_CATCH_KEYS)
        if "result" not in entry:
            message = f"an entry of `catch` in the task of the iterator `{name}` has no `result`"
            hint = "write result: with the value that the item counts as done with; null is one"
            reading.report.error(CATCH_CODE, where, message, hint)
        when = None
        if "when" in entry:
            when = reading.condition(entry["when"], (*where, "when"), part, CATCH_CODE)
        result = reading.tree(entry.get("result"), (*where, "result"), part)
        found.append(ItemCatch(when=when, result=result))
        always = next((at for at, one in enumerate(found[:-1]) if one.when is None), None)
        if always is not None:
            message = f"this catch can never be taken: entry {always + 1} has no `when`, so it is always taken"
            reading.report.warning("dead-catch", where, message, "move the entry without `when` to the end")
    return tuple(found)
