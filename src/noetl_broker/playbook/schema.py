"""The JSON Schema of playbooks, so that an editor can complete and check them."""

from __future__ import annotations

from typing import Any

from noetl_broker.playbook.document import PlaybookModel
from noetl_broker.playbook.vocabulary import OWN_KEYS, TYPE_KEYS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def playbook_schema(extra_step_types: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Give the schema as JSON; the operator's own step types are offered beside the built-in ones."""
    schema = PlaybookModel.model_json_schema(by_alias=True)
    schema["$schema"] = DIALECT
    schema["title"] = "NoETL playbook"
    schema["required"] = ["apiVersion", "kind"]
    schema["anyOf"] = [{"required": ["workflow"]}, {"required": ["steps"]}]
    types = sorted({*OWN_KEYS, "workbook", *extra_step_types})
    for name in ("StepModel", "ActionModel", "TaskModel"):
        _offer_types(schema["$defs"][name], types)
    schema["$defs"]["StepModel"]["anyOf"] = [{"required": ["step"]}, {"required": ["name"]}]
    schema["$defs"]["ActionModel"]["required"] = ["name"]
    return schema


def _offer_types(model: dict[str, Any], types: list[str]) -> None:
    """Offer the types, and beside each the keys that it defines itself."""
    for word in TYPE_KEYS:
        described = model["properties"][word]["description"]
        model["properties"][word] = {"enum": types, "description": described}
    model["allOf"] = [
        {
            "if": {"anyOf": [{"properties": {word: {"const": name}}, "required": [word]} for word in TYPE_KEYS]},
            "then": {"properties": dict.fromkeys(sorted(OWN_KEYS[name]), True)},
        }
        for name in types
        if OWN_KEYS.get(name)
    ]
