"""Generates two pages: the keys of playbooks from the models, tables and functions from a migrated database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from noetl_broker.playbook.json_schema import playbook_schema
from noetl_broker.playbook.step_types import OWN_KEYS
from tests.brokers import rows
from tests.postgres import Database

DOCS = Path(__file__).parents[2] / "docs"
PLAYBOOKS, TABLES = DOCS / "reference" / "keys.md", DOCS / "reference" / "tables.md"

# The models in the order of a document, each with its heading.
HEADINGS = {
    "": "The document",
    "MetadataModel": "`metadata`",
    "ScheduleModel": "`metadata.schedule`",
    "OnSignalModel": "A signal that starts it",
    "ConcurrencyModel": "`metadata.concurrency`",
    "OnFailureModel": "What starts after a failure",
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
KEYS_ABOUT = """\
Generated from the declared keys by `make docs`. [Writing playbooks](../how-to/playbooks.md) explains them.
Other keys are errors at registration, except on a type of your own workers."""
TABLES_ABOUT = """\
The tables, the views and the functions that people call, from the comments of a migrated database: `make docs`.
[Worker protocol](worker-protocol.md) says how to use it, [Security](security.md#rights) who may."""
WORDS = {
    "string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "object": "mapping",
    "array": "list", "null": "",
}  # fmt: skip


def playbook_reference() -> str:
    """Return the page of all keys."""
    schema = playbook_schema()
    parts = [
        "# Keys of a playbook",
        KEYS_ABOUT,
    ]
    for name, heading in HEADINGS.items():
        model = schema["$defs"][name] if name else schema
        parts += [f"## {heading}", model["description"], _table(("key", "holds", "meaning"), _keys(model))]
    kinds = [(f"`{name}`", ", ".join(f"`{key}`" for key in sorted(keys))) for name, keys in sorted(OWN_KEYS.items())]
    parts += ["## Types", "The keys of each step type, besides those above.", _table(("type", "its own keys"), kinds)]
    return "\n\n".join(parts) + "\n"


def _keys(model: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    for key, schema in model["properties"].items():
        yield f"`{key}`", _holds(schema), str(schema.get("description", "")) + _default(schema)


def _holds(schema: Mapping[str, Any]) -> str:
    """Return what a key may hold, in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(word for option in schema["anyOf"] if (word := _holds(option))))
    if "enum" in schema:
        return "a type, see below" if len(schema["enum"]) > 6 else " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        heading = HEADINGS[name]
        return f"[{heading}](#{re.sub(r'[^a-z_ ]', '', heading.lower()).replace(' ', '-')})"
    if schema.get("type") == "array" and (item := _holds(schema.get("items", {}))) not in {"", "anything"}:
        return f"list of {item}"
    return WORDS.get(str(schema.get("type")), "anything")


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    if default is None or "const" in schema:
        return ""
    if isinstance(default, str):
        return f" Default {default}."
    text = str(default).lower() if isinstance(default, bool) else f"{default:g}"
    return f" Default {text}."


def _table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    written = [head, ("---",) * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in written)


COLUMNS = """
select c.relname, c.relkind::text, coalesce(obj_description(c.oid, 'pg_class'), ''), a.attname,
  replace(format_type(a.atttypid, a.atttypmod), 'timestamp with time zone', 'timestamptz'),
  a.attnotnull, coalesce(col_description(c.oid, a.attnum), '')
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'noetl'::regnamespace and c.relkind in ('r', 'p', 'v') and not c.relispartition
order by c.relkind = 'v', c.relname collate "C", a.attnum
"""
FUNCTIONS = """
select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), obj_description(p.oid, 'pg_proc')
from pg_proc p
where p.pronamespace = 'noetl'::regnamespace and obj_description(p.oid, 'pg_proc') is not null
order by p.proname collate "C", pg_get_function_identity_arguments(p.oid) collate "C"
"""


async def tables_reference(database: Database) -> str:
    """Return the page of tables, views and functions."""
    parts = [
        "# Tables and functions",
        TABLES_ABOUT,
        "## Tables",
    ]
    tables: dict[tuple[str, str, str], list[tuple[str, str, str]]] = {}
    for name, kind, comment, *column in await rows(database, COLUMNS):
        attribute, data_type, required, meaning = column
        column_type = f"{data_type}{', required' if required else ''}"
        tables.setdefault((name, kind, comment), []).append((f"`{attribute}`", column_type, meaning))
    for (name, _, comment), columns in (item for item in tables.items() if item[0][1] != "v"):
        parts += [f"### noetl.{name}", comment, _table(("column", "type", "meaning"), columns)]
    parts += ["## Views", "The columns are those of the tables."]
    views = [
        (f"`noetl.{name}`", comment, ", ".join(column[0] for column in columns))
        for (name, kind, comment), columns in tables.items()
        if kind == "v"
    ]
    parts += [_table(("view", "shows", "columns"), views), "## Functions"]
    parts += [_table(("function", "gives", "does"), [_function(*row) for row in await rows(database, FUNCTIONS)])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _function(name: str, arguments: str, result: str, comment: str) -> tuple[str, str, str]:
    plain = re.sub(r"::\w+(\[\])?", "", arguments)
    gives = "a table" if result.startswith("TABLE") else result.replace("SETOF ", "rows of ")
    return f"`noetl.{name}({plain})`", gives, comment
