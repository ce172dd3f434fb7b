"""Writes tables of Markdown, and JSON Schema in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

WORDS = {
    "string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "object": "mapping",
    "array": "list", "null": "",
}  # fmt: skip


def table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    """Return a table."""
    written = [head, ("---",) * len(head), *lines]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in written)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def anchor(heading: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def link(heading: str) -> str:
    """Return a link to a heading of the same page."""
    return f"[{heading}](#{anchor(heading)})"


def holds(schema: Mapping[str, Any], heading_of: Callable[[str], str]) -> str:
    """Return what a value may be, in words; a model is a link to its heading."""
    if "anyOf" in schema and schema.get("type") != "string":
        return " or ".join(dict.fromkeys(word for option in schema["anyOf"] if (word := holds(option, heading_of))))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return link(heading_of(str(schema["$ref"]).rpartition("/")[2]))
    if schema.get("type") == "array" and (item := holds(schema.get("items", {}), heading_of)) not in {"", "anything"}:
        return f"list of {item}"
    return WORDS.get(str(schema.get("type")), "anything") + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f", {schema['minimum']:,.0f} to {schema['maximum']:,.0f}"
    if "maxLength" in schema:
        return f", at most {schema['maxLength']:,} characters"
    return ""


def meaning(schema: Mapping[str, Any]) -> str:
    """Return the description, with the default value."""
    said, default = str(schema.get("description", "")), schema.get("default")
    if default is None or default in ({}, [], "") or "const" in schema:
        return said
    text = (
        default if isinstance(default, str) else str(default).lower() if isinstance(default, bool) else f"{default:g}"
    )
    return " ".join(part for part in (said and f"{said.rstrip('.')}.", f"Default {text}.") if part)
