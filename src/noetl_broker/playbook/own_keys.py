"""Refuses wrong keys of a task at registration: unknown ones, and missing or wrong ones of its type.

A template is checked when it is rendered. A version of the catalog runs whatever its keys are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noetl_broker.playbook.blocks import KEY as BLOCK
from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.joins import hint_for_misplaced_key
from noetl_broker.playbook.keys import Form
from noetl_broker.playbook.keywords import IGNORED_KEYS, INPUT_WORDS, SAVE_KEYS
from noetl_broker.playbook.kinds import StepKind
from noetl_broker.playbook.reader import Reading, strings
from noetl_broker.playbook.step_keys import BROKER_KEYS, LOOP
from noetl_broker.playbook.step_types import CHECKED_KEYS, TYPES
from noetl_broker.playbook.tasks import Declared

REMEDIES_OF_BLOCKS: Mapping[StepKind, str] = {"iterator": "write it in the task"}


def refuse_wrong_keys(reading: Reading, name: str, declared: Declared, *, iterating: bool = False) -> None:
    """Refuse unknown keys of a task, and missing or wrong keys of its type; people's own types may have any."""
    if declared.is_foreign:
        return
    keys = BROKER_KEYS.union(INPUT_WORDS, declared.own, SAVE_KEYS)
    if declared.traits.has_job:
        keys |= {"auth"}
    _refuse_unknown(reading, name, declared, keys.union(LOOP.known) if iterating else keys)
    of_type = TYPES[declared.type]
    for one_needed, example in of_type.needs:
        if all(declared.lookup(key)[0] is None for key in one_needed):
            first, where = one_needed[0], declared.layers[-1].location
            message = f"the {declared.type} step `{name}` has no `{first}`"
            reading.report.refuse("missing-key", where, message, f"write {first}: {example}")
    for key in CHECKED_KEYS[declared.type]:
        _refuse_wrong(reading, *declared.lookup(key.name), key.form)
    for word in of_type.meaningless:
        value, where = declared.lookup(word)
        if value is not None:
            message = f"`{word}` of the {declared.type} step `{name}` has no meaning"
            reading.report.error(of_type.code, where, message, "remove it")


def _refuse_wrong(reading: Reading, value: Any, location: Location, form: Form) -> None:
    if value is None or form.fits(value) or (isinstance(value, str) and any(strings(value, location))):
        return
    hint = form.hint or f"write {form.wanted}"
    words = form.schemas[0].get("enum") if form.schemas else None
    if words and isinstance(value, str):
        near = reading.report.did_you_mean(value, words)
        hint = near if near.startswith("did") else hint
    reading.report.refuse("bad-value", location, form.fault(value, location), hint)


def _refuse_unknown(reading: Reading, name: str, declared: Declared, known: frozenset[str]) -> None:
    """Refuse unknown keys; the job of a registered version still contains them."""
    for layer in declared.layers:
        for key in layer.raw:
            if key in known:
                continue
            if key == BLOCK:
                message = f"the step `{name}` has a `{key}`, and its type is {declared.type}"
                remedy = REMEDIES_OF_BLOCKS.get(declared.kind, "write type: playbook")
                reading.report.error("bad-type", (*layer.location, key), message, remedy, key=True)
                continue
            message = f"unknown key `{key}` on the {declared.type} step `{name}`"
            hint = of_join = hint_for_misplaced_key(layer.raw, key)
            if of_join:
                message = f"`{key}` is a key of `join`, and stands beside it on step `{name}`"
            elif key == "pass":
                hint = "the step always runs: put the condition into the `next` of the step before it"
            elif key in IGNORED_KEYS:
                hint = "remove it: it belongs to another dialect"
            otherwise = "remove it, or write it under `args` if it is an input"
            reading.report.unknown_key((*layer.location, key), message, known, hint, otherwise)
