"""Reads what becomes of failed items of an iterator: `tolerate`, and `catch` and `retry` of its task."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from noetl_broker.playbook.diagnostics import json_type_name
from noetl_broker.playbook.keys import TREE, WHEN, Form, Key, Keys, Layers, entries_of, of_mapping, read_keys
from noetl_broker.playbook.keywords import ERROR
from noetl_broker.playbook.model import ItemCatch, Tolerance
from noetl_broker.playbook.reader import TemplateSite

if TYPE_CHECKING:
    from noetl_broker.playbook.reader import Reading

CODE = "bad-iterator"
CATCH_CODE = "bad-catch"
MOST_TOLERATED = 1_000_000
PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%")
CATCH = Keys(
    model="ItemCatchModel",
    about="The result of an item that failed for good.",
    word="catch",
    keys=(
        Key("when", WHEN, "Only if this is true; reads `error` and the element.", null=False),
        Key("result", TREE, "The item counts as done with this value; null is one.", required="null"),
    ),
)
NO_STEPS = frozenset({"step", "then", "next", "name"})


def parse_tolerance(value: object) -> Tolerance:
    """Give how many items may fail. Raises ValueError for anything but a count or a percentage as text."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOLERATED:
        return Tolerance(count=value)
    found = PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or float(found[1]) > 100:  # noqa: PLR2004 - all of them
        raise ValueError(value)
    return Tolerance(percent=float(found[1]))


TOLERANCE = Form(
    "a number of items or a percentage",
    parse_tolerance,
    (
        {"type": "integer", "minimum": 0, "maximum": MOST_TOLERATED},
        {"pattern": r"^\s*\d{1,3}(\.\d{1,6})?\s*%\s*$", "type": "string"},
    ),
    f"write tolerate: 5 (at most {MOST_TOLERATED:,}), or tolerate: 20% (at most 100%)",
)


def read_item_catch(reading: Reading, name: str, task: Layers, names: frozenset[str]) -> tuple[ItemCatch, ...]:
    """Read the `catch` of a task: entries of a condition (None: always) and a result."""
    raw, location = task.lookup("catch")
    if raw is None:
        return ()
    part = TemplateSite(step=name, role="catch", names=names | {ERROR})
    found: list[ItemCatch] = []
    for entry, where in entries_of(raw, location):
        if not isinstance(entry, dict):
            message = f"an entry of `catch` in the task of the iterator `{name}` is {json_type_name(entry)}"
            reading.report.error(CATCH_CODE, where, message, "write {when: …, result: …}")
            continue
        for key in entry:
            if key in NO_STEPS:
                message = f"`{key}` in the `catch` of the task of the iterator `{name}`: an item goes to no step"
                hint = "write result: with the value of the item, or put catch on the step"
                reading.report.error(CATCH_CODE, (*where, key), message, hint, key=True)
            elif key not in CATCH.known:
                reading.report.unknown_key((*where, key), f"unknown key `{key}` in `catch`", frozenset(CATCH.known))
        if "result" not in entry:
            message = f"an entry of `catch` in the task of the iterator `{name}` has no `result`"
            hint = "write result: with the value that the item counts as done with; null is one"
            reading.report.error(CATCH_CODE, where, message, hint)
        keys = read_keys(reading, CATCH.keys, of_mapping(entry, where), part, CATCH_CODE)
        found.append(ItemCatch(**{"when": None, "result": reading.tree(None, (*where, "result"), part)} | keys))
        always = next((at for at, one in enumerate(found[:-1]) if one.when is None), None)
        if always is not None:
            message = f"this catch can never be taken: entry {always + 1} has no `when`, so it is always taken"
            reading.report.warning("dead-catch", where, message, "move the entry without `when` to the end")
    return tuple(found)
