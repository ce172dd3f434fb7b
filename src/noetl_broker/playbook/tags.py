"""Reads `metadata.tags`: by what lists find the executions of a playbook."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from noetl_broker.playbook.diagnostics import Location
from noetl_broker.playbook.keys import BOOL, NUMBER, TEXT, Form, Schema
from noetl_broker.playbook.model import Raw
from noetl_broker.playbook.reader import Reading, TemplateSite
from noetl_broker.template import Tree

KEY: Final[Location] = ("metadata", "tags")
MOST: Final = 16  # noetl.check_tags has the same bounds
NAME: Final = "[a-z][a-z0-9_.-]{0,62}"
VALUE_CHARS: Final = 256
PATTERN: Final = rf"^{NAME}=[\s\S]{{0,{VALUE_CHARS}}}$"  # of a text NAME=VALUE
FORMS: Final = f"a text of at most {VALUE_CHARS} characters, a number or a boolean"
SCHEMA: Final[Schema] = {
    "additionalProperties": {"type": ["string", "number", "boolean"]},
    "maxProperties": MOST,
    "propertyNames": {"pattern": f"^{NAME}$"},
    "type": "object",
}


def tag_text(value: Any) -> str:
    """The value of a tag, as text: a number or a boolean is its JSON text. Raises ValueError."""
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if not isinstance(value, str) or len(value) > VALUE_CHARS:
        raise ValueError(f"it is no {FORMS.removeprefix('a ')}")
    return value


VALUE: Final = Form(FORMS, tag_text, (TEXT, NUMBER, BOOL), templates="text", compiled=True)


def read_tags(reading: Reading, metadata: Raw) -> dict[str, Tree]:
    """Read the templates of the tags; report the faults. A list of words is for people, and gives no tags."""
    written = metadata.get("tags")
    if not isinstance(written, dict):
        return {}
    report = reading.report
    if len(written) > MOST:
        report.error("bad-value", KEY, f"`tags` has {len(written)} tags; it may have {MOST}", "remove some")
    found: dict[str, Tree] = {}
    for name, value in written.items():
        location = (*KEY, name)
        if not re.fullmatch(NAME, name):
            message = f"`{name:.80}` is no name of a tag"
            report.error("bad-value", location, message, "write a to z first, then a-z, 0-9, _, . or -", key=True)
            continue
        tree = VALUE.read(reading, value, location, TemplateSite(step=None, role="workload"))
        if tree is not None:
            found[name] = tree
    return found
