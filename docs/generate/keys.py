"""Generates the page of the keys of playbooks, from the declared keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from docs.generate.markdown import holds, meaning, table
from noetl_broker.playbook.json_schema import playbook_schema
from noetl_broker.playbook.step_types import OWN_KEYS

# The models in the order of a document, each with its heading.
HEADINGS = {
    "": "The document",
    "MetadataModel": "`metadata`",
    "ScheduleModel": "`metadata.schedule`",
    "OnSignalModel": "A signal that starts it",
    "ConcurrencyModel": "`metadata.concurrency`",
    "OnFailureModel": "What starts after a failure",
    "OnLateModel": "What starts when something is late",
    "StepModel": "A step",
    "EntryModel": "An entry of `next`",
    "TargetModel": "A target",
    "CatchModel": "An entry of `catch`",
    "JoinModel": "`join`",
    "LoopModel": "`loop`",
    "RetryModel": "`retry`",
    "ThrottleModel": "`throttle`",
    "ActionModel": "An action of `workbook`",
    "TaskModel": "`compensate`",
    "IteratorTaskModel": "The `task` of an iterator",
    "ItemCatchModel": "An entry of its `catch`",
}
ABOUT = """\
Each key of a playbook, what it holds and what it means. [Writing playbooks](../how-to/playbooks.md) explains them.
Other keys are errors at registration, except on a type of your own workers."""


def keys_page() -> str:
    """Return the page of all keys."""
    schema = playbook_schema()
    parts = ["# Keys of a playbook", ABOUT]
    for name, heading in HEADINGS.items():
        model = schema["$defs"][name] if name else schema
        parts += [f"## {heading}", model["description"], table(("key", "holds", "meaning"), _keys(model))]
    kinds = [(f"`{name}`", ", ".join(f"`{key}`" for key in sorted(keys))) for name, keys in sorted(OWN_KEYS.items())]
    parts += ["## Types", "The keys of each step type, besides those above.", table(("type", "its own keys"), kinds)]
    return "\n\n".join(parts) + "\n"


def _keys(model: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    for key, schema in model["properties"].items():
        is_type = "enum" in schema and key in {"type", "tool"}
        value = "a type, see [Types](#types)" if is_type else holds(schema, HEADINGS.__getitem__)
        yield f"`{key}`", value, meaning(schema)
