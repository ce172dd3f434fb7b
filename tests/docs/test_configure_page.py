"""docs/configure.md lists every setting as the program has it."""

from __future__ import annotations

import json
import re
from typing import Any

from noetl_broker.broker.model import Rules
from noetl_broker.settings import Settings
from tests.docs.pages import read_page, table

PAGE = read_page("configure")


def _plain(default: Any) -> str:
    if default is None:
        return ""
    return f"`{json.dumps(sorted(default) if isinstance(default, frozenset) else default)}`"


def _bounds(name: str) -> str:
    schema = Settings.model_json_schema()["properties"][name]
    schema |= schema.get("anyOf", [{}])[0]  # of what may be None
    if "enum" in schema:
        return ", ".join(schema["enum"])
    return f"{schema['minimum']:.12g} to {schema['maximum']:.12g}" if "minimum" in schema else ""


def test_each_setting_has_its_default_and_bounds() -> None:
    """The table has the order of the class."""
    listed = {name: cells[:2] for name, cells in table(PAGE, "| setting |").items()}
    assert list(listed.items()) == [
        (name, [_plain(field.default), _bounds(name)]) for name, field in Settings.model_fields.items()
    ]


def test_the_settings_called_rules_are_fields_of_rules() -> None:
    """An execution keeps exactly these."""
    [paragraph] = re.findall(r"are \*\*rules\*\*.*?\n\n(.*?)\n\n", PAGE, re.DOTALL)
    named = set(re.findall(r"`(\w+)`", paragraph))
    assert named == {name for name in Settings.model_fields if name in Rules.__dataclass_fields__}
