"""Refuses wrong keys of a task at registration: unknown ones, and missing or wrong ones of its type.

A template is checked when it is rendered. A version of the catalog runs whatever its keys are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

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

# Where the address or the login of a database may stand in a step. An input of these names means nothing else.
OTHER_DATABASE: Final = frozenset(
    {"auth", "credential", "credentials", "connection", "database", "host", "port", "user", "password", "schema"}
)
ADDRESS_INPUT: Final = re.compile(r"dsn|(?:db|pg)_\w+")
REMEDIES_OF_BLOCKS: Mapping[StepKind, str] = {"iterator": "write it in the task"}


def refuse_wrong_keys(reading: Reading, name: str, declared: Declared, *, iterating: bool = False) -> None:
    """Refuse unknown keys of a task, and missing or wrong keys of its type; people's own types may have any."""
    refuse_other_databases(reading, name, declared)
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


def refuse_other_databases(reading: Reading, name: str, declared: Declared) -> None:
    """Refuse `commit: with_result` of a step or its `save` that names a database of its own."""
    for layer in declared.layers:
        places = [(layer.raw, layer.location)]
        places += [
            (layer.raw[key], (*layer.location, key)) for key in SAVE_KEYS if isinstance(layer.raw.get(key), dict)
        ]
        for spec, where in places:
            if spec.get("commit") is None or (spec is layer.raw and declared.is_foreign):
                continue
            storage = spec.get("storage")
            for holder in (spec, storage, *(spec.get(word) for word in INPUT_WORDS)):
                if isinstance(holder, dict):
                    _refuse_address(reading, name, holder, where, is_step=holder is spec or holder is storage)


def _refuse_address(reading: Reading, name: str, holder: Mapping[str, Any], where: Location, *, is_step: bool) -> None:
    for key in holder:
        if ADDRESS_INPUT.fullmatch(str(key)) or (is_step and key in OTHER_DATABASE):
            message = f"`commit` of step `{name}` needs the database of the broker, and `{key}` names another one"
            remedy = f"remove {key}, and name the schema with the table; or remove commit"
            reading.report.refuse("bad-value", (*where, "commit"), message, remedy)
            return
