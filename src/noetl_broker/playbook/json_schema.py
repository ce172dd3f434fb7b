"""The JSON Schema of playbooks, so that an editor can complete and check them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from noetl_broker.playbook import concurrency, items, joins, on_failure, retries, schedules, signals, throttle
from noetl_broker.playbook.header import METADATA, ROOT
from noetl_broker.playbook.keys import Key, Keys, ref
from noetl_broker.playbook.keywords import TYPE_KEYS
from noetl_broker.playbook.step_keys import ACTION, BLOCK_LIMIT, ITEM_TASK, LOOP, STEP, TASK
from noetl_broker.playbook.step_types import OWN_KEYS, TYPES
from noetl_broker.playbook.transitions import CATCH, ENTRY, TARGET

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MODELS = (
    *(ACTION, CATCH, ENTRY, ITEM_TASK, LOOP, METADATA, STEP, TARGET, TASK, concurrency.KEYS, items.CATCH, joins.KEYS),
    *(on_failure.KEYS, on_failure.LATE_KEYS, retries.KEYS, schedules.KEYS, signals.ON_SIGNAL_KEYS, throttle.KEYS),
)
# What a step of a type must have, and what it must not.
RULES: dict[str, dict[str, Any]] = {
    "playbook": {"not": {"required": ["path", "workflow"]}},  # one of them, or the path of a workbook action
    "wait": {"oneOf": [{"required": [key]} for key in ("for", "until", "signal")]},
    "signal": {"required": ["signal"]},
}


def playbook_schema(extra_step_types: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Give the schema as JSON, with these step types beside the built-in ones."""
    models = {one.model: _mapping(one) for one in MODELS}
    types = sorted({*OWN_KEYS, "workbook", *extra_step_types})
    for model in (STEP.model, ACTION.model, ITEM_TASK.model):
        _offer_types(models[model], types)
    step = models[STEP.model]
    step["allOf"] += [{"if": _has_type(name), "then": rule} for name, one in TYPES.items() if (rule := _rule(name))]
    step["anyOf"] = [{"required": ["step"]}, {"required": ["name"]}]
    models[ACTION.model]["required"] = ["name"]
    models[ACTION.model]["properties"]["workflow"]["type"] = "null"
    models[TASK.model]["properties"]["concurrency"] = ref(concurrency.KEYS.model) | {"description": BLOCK_LIMIT}
    return {
        "$defs": models,
        **_mapping(ROOT),
        "$schema": DIALECT,
        "title": "NoETL playbook",
        "required": ["apiVersion", "kind"],
        "anyOf": [{"required": ["workflow"]}, {"required": ["steps"]}],
    }


def _mapping(keys: Keys) -> dict[str, Any]:
    """Give the schema of a mapping."""
    defaults = {one.name: one.default for one in fields(keys.compiled)} if keys.compiled is not None else {}
    properties = {key.name: _property(key, defaults.get(key.name, key.default)) for key in keys.keys}
    required = [key.name for key in keys.keys if key.required]
    return {
        "additionalProperties": keys.is_open,
        "description": keys.about,
        "properties": properties,
        **({"required": required} if required else {}),
        "title": keys.model,
        "type": "object",
    }


def _property(key: Key, default: Any) -> dict[str, Any]:
    """Give the schema of a key's value; a key that may be left out without a default may be null."""
    options = list(key.form.schemas)
    if options and default is None and not key.required:
        options.append({"type": "null"})
    schema = {"anyOf": options} if len(options) > 1 else dict(*options)
    about = {"description": key.about} if key.about else {}
    return schema | ({} if key.required else {"default": default}) | about


def _offer_types(model: dict[str, Any], types: list[str]) -> None:
    """Add the types, and the keys that each type defines."""
    for word in TYPE_KEYS:
        described = model["properties"][word]["description"]
        model["properties"][word] = {"enum": types, "description": described}
    model["allOf"] = [
        {"if": _has_type(name), "then": {"properties": dict.fromkeys(sorted(OWN_KEYS[name]), True)}}
        for name in types
        if OWN_KEYS.get(name)
    ]


def _has_type(name: str) -> dict[str, Any]:
    return {"anyOf": [{"properties": {word: {"const": name}}, "required": [word]} for word in TYPE_KEYS]}


def _rule(name: str) -> dict[str, Any]:
    """Give what a step of a type must have and must not have."""
    of_type = TYPES[name]
    needed = [{"anyOf": [{"required": [key]} for key in keys]} for keys, _ in of_type.needs]
    refused = {"retry": {"type": "null"}} if "retry" in of_type.meaningless else {}
    return RULES.get(name, {}) | ({"allOf": needed} if needed else {}) | ({"properties": refused} if refused else {})
