"""Reads `metadata.on_failure`: the playbook that starts when an execution has failed."""

from __future__ import annotations

from typing import Any, Final

from noetl_broker.playbook.blocks import MARK
from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.keys import A_MAPPING, Form, Key, Keys
from noetl_broker.playbook.model import OnFailure, Raw
from noetl_broker.playbook.reader import CallOfPath, Reading, TemplateSite

LOCATION: Final[Location] = ("metadata", "on_failure")
GIVEN: Final = ("execution_id", "path", "step", "error", "compensation")  # what the payload has beside `args`
SEEN: Final = frozenset({"error"})  # what the templates of `args` find beside the workload and results
PATH: Final = "folder/of/the/playbook"


def _parse_path(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "{{" in value or "{%" in value or MARK in value:
        raise ValueError(value)
    return value.strip()


KEYS: Final = Keys(
    model="OnFailureModel",
    about="The playbook that starts when an execution has failed.",
    word="on_failure",
    example=f"{{path: {PATH}}}",
    keys=(
        Key(
            "path",
            Form(
                "the path of a playbook, without a template or a block",
                _parse_path,
                ({"minLength": 1, "type": "string"},),
                f"write path: {PATH}",
            ),
            "The path of the playbook; its latest version starts.",
            required=PATH,
        ),
        Key(
            "args",
            A_MAPPING._replace(hint="write args: {name: value}"),
            "Added to its payload; templates read `error`.",
        ),
    ),
)


def read_on_failure(reading: Reading, metadata: Raw) -> OnFailure | None:
    """Read it; report an error and give None for a wrong one."""
    raw: Any = metadata.get("on_failure")
    site = TemplateSite(step=None, role="workload", names=SEEN)
    found = None if raw is None else KEYS.read_mapping(reading, raw, LOCATION, site)
    if found is None:
        return None
    args, location = found.get("args", {}), (*LOCATION, "args")
    for key in GIVEN:
        if key in args:
            message = f"`args` of `on_failure` has the key `{key}`, which the broker gives"
            reading.report.error("bad-value", (*location, key), message, "rename it", key=True)
    trees = {key: reading.tree(value, (*location, key), site) for key, value in args.items()}
    if "path" not in found:
        return None
    reading.calls.append(CallOfPath((*LOCATION, "path"), raw["path"], None))
    return OnFailure(path=found["path"], args=trees)
