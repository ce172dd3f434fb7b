"""Runs the `save` (or `sink`) of a step: writes data to a table, or passes it to another tool.

Names of tables and columns are quoted, and values are parameters, so no data becomes SQL. A `statement` is the author's
SQL: its templates become SQL text, and its `:name` become parameters.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from noetl_broker.playbook.keywords import SAVE_MODES
from noetl_broker.sql_text import has_names, has_numbers, numbered, quoted_name, quoted_table, split_statements
from noetl_broker.worker.sql.run import SqlStatement
from noetl_broker.worker.tools.postgres import run_sql
from noetl_broker.worker.tools.task import Task, Tool

KEYS = ("save", "sink")
EVENT_LOG = frozenset({"event_log", "event", "events", "event-log"})
POSTGRES = frozenset({"postgres", "postgresql"})
# Tools that take the data as their inputs.
DELEGATES = frozenset({"http", "python"})
MAX_PARAMETERS = 2_000  # of one statement

Finish = Callable[[Any, Mapping[str, Any]], Any]


def flattened(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A `save` in its one internal form: `kind`, and all other keys at the same level.

    The kind is `storage` or its `type`, else `tool`, `type` or `kind`. A table or a statement alone means Postgres.
    """
    storage = spec.get("storage")
    flat = {key: value for key, value in spec.items() if key != "storage"}
    kind = storage if isinstance(storage, str) else None
    if isinstance(storage, Mapping):
        flat |= storage
    kind = kind or next((flat[key] for key in ("tool", "type", "kind") if isinstance(flat.get(key), str)), None)
    if kind is None or kind == "save":
        kind = "postgres" if {"table", "statement"} & flat.keys() else "event_log"
    return flat | {"kind": kind.strip().lower()}


async def save(task: Task, spec: Any, finish: Finish, delegates: Mapping[str, Tool]) -> dict[str, Any]:
    """Render the templates of a `save` by `finish(value, more names)` and run it; returns {saved: kind, …}.

    Raises ToolFault.
    """
    if not isinstance(spec, Mapping):
        raise task.fault(f"save must be a mapping, not {type(spec).__name__}", kind="bad_job")
    flat = flattened(spec)
    statement = flat.pop("statement", None)
    code = {key: flat.pop(key) for key in ("code", "code_b64") if key in flat}
    rendered = {**finish(flat, {}), **code}
    data = next((rendered[key] for key in ("data", "args", "params") if rendered.get(key) is not None), None)
    kind = rendered["kind"]
    if rendered.get("commit") is not None and kind not in POSTGRES:
        raise task.fault(f"save: commit has no meaning with storage {kind!r}; remove it", kind="bad_value")
    own = dataclasses.replace(task, action=rendered, args={})
    if kind in EVENT_LOG:
        return {"saved": "event_log", "data": data}
    if kind in POSTGRES:
        if statement is not None:
            words = {"data": data, "params": rendered.get("params", data), "args": data}
            return await _save_by_statement(own, str(finish(statement, words)), rendered.get("params", data))
        return await _save_rows(own, rendered, data)
    if kind in DELEGATES:
        inputs = {"data": data} if kind == "python" else {}
        body = {} if kind == "python" or {"payload", "body", "json"} & rendered.keys() else {"payload": data}
        inputs |= dict(data) if isinstance(data, Mapping) else {}
        await delegates[kind](dataclasses.replace(own, type=kind, action=rendered | body, args=inputs))
        return {"saved": kind}
    raise task.fault(
        f"save to {kind!r} is not supported by this worker; use postgres, event_log, http or python, "
        "or a step of its own",
        kind="not_supported",
    )


async def _save_by_statement(task: Task, text: str, values: Any) -> dict[str, Any]:
    pieces = split_statements(text)
    if not pieces:
        return {"saved": "postgres", "row_count": 0}
    if isinstance(values, list):
        rows = [row for row in values if isinstance(row, Mapping)]
        if len(rows) == len(values) and not any(has_numbers(piece) for piece in pieces):
            statements = _statements_of_rows(task, pieces, rows)
        else:
            statements = [SqlStatement(sql=piece, values=values) for piece in pieces]
    else:
        named = values if isinstance(values, Mapping) else {}
        statements = [
            SqlStatement(sql=sql, values=bound) for sql, bound in (numbered(piece, named) for piece in pieces)
        ]
    results = await run_sql(task, statements)
    return {"saved": "postgres", "row_count": sum(result.count for result in results)}


def _statements_of_rows(task: Task, pieces: list[str], rows: list[Mapping[str, Any]]) -> list[SqlStatement]:
    """The statements, once for each row. Without rows, only statements that read no value run."""
    if not rows:
        return [SqlStatement(sql=piece) for piece in pieces if not has_names(piece)]
    keys = {key: key for row in rows for key in row}
    statements = []
    for index, row in enumerate(rows):
        for piece in pieces:
            sql, order = numbered(piece, keys)
            if missing := [key for key in order if key not in row]:
                message = f"row {index} of the data has no {missing[0]!r}, which the statement and other rows name"
                raise task.fault(f"save: {message}", kind="bad_value")
            statements.append(SqlStatement(sql=sql, values=[row[key] for key in order]))
    return statements


async def _save_rows(task: Task, spec: Mapping[str, Any], data: Any) -> dict[str, Any]:
    rows = data if isinstance(data, list) else [data]
    if not all(isinstance(row, Mapping) and row for row in rows):
        raise task.fault("save needs `data`: a mapping of columns to values, or a list of such", kind="bad_value")
    mode = SAVE_MODES.get(str(spec.get("mode") or "insert").strip().lower())
    if mode is None:
        raise task.fault(f"the save mode {spec.get('mode')!r} is none of insert and upsert", kind="bad_value")
    try:
        statements = insertions(
            str(spec.get("table") or ""), rows, keys_of(spec.get("key")) if mode == "upsert" else None
        )
    except ValueError as error:
        raise task.fault(f"save: {error}", kind="bad_value") from None
    results = await run_sql(task, statements) if statements else []
    return {"saved": "postgres", "table": spec.get("table"), "row_count": sum(result.count for result in results)}


def keys_of(key: Any) -> list[str]:
    """The key columns of an upsert: a name, a list of names, or names separated by commas."""
    names = key.split(",") if isinstance(key, str) else key
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"mode upsert needs `key`, a column or a list of columns, not {key!r}")
    return [name.strip() for name in names]


def insertions(table: str, rows: list[Mapping[str, Any]], keys: list[str] | None) -> list[SqlStatement]:
    """The inserts for rows, in statements of at most MAX_PARAMETERS values; with `keys` they overwrite existing rows.

    A missing column gets its default in a new row, and keeps its value in an existing row. Raises ValueError for a
    wrong name or a row without a key.
    """
    target = quoted_table(table)
    statements: list[SqlStatement] = []
    for group in [rows] if keys is None else _by_columns(rows, keys):
        columns = list(dict.fromkeys(column for row in group for column in row))
        # Safe to concatenate: the names are quoted, and the values are parameters.
        head = f"insert into {target} ({', '.join(map(quoted_name, columns))}) values "  # noqa: S608
        tail = _on_conflict(columns, keys)
        at_once = max(MAX_PARAMETERS // len(columns), 1) if columns else 1
        statements += [
            _insertion(head, columns, group[start : start + at_once], tail) for start in range(0, len(group), at_once)
        ]
    return statements


def _by_columns(rows: list[Mapping[str, Any]], keys: list[str]) -> list[list[Mapping[str, Any]]]:
    """The rows of an upsert, grouped by their columns: one statement writes the same columns of all its rows."""
    if missing := [key for key in keys for row in rows if key not in row]:
        raise ValueError(f"the key column {missing[0]!r} is not in the data")
    # A statement may write a row once: of several rows with one key, the last is used.
    last = {json.dumps([row[key] for key in keys]): row for row in rows}
    groups: dict[frozenset[str], list[Mapping[str, Any]]] = {}
    for row in last.values():
        groups.setdefault(frozenset(row), []).append(row)
    return list(groups.values())


def _insertion(head: str, columns: list[str], rows: list[Mapping[str, Any]], tail: str) -> SqlStatement:
    values: list[Any] = []
    tuples: list[str] = []
    for row in rows:
        marks = []
        for column in columns:
            if column in row:
                values.append(row[column])
                marks.append(f"${len(values)}")
            else:
                marks.append("default")
        tuples.append(f"({', '.join(marks)})")
    return SqlStatement(sql=head + ", ".join(tuples) + tail, values=values)


def _on_conflict(columns: list[str], keys: list[str] | None) -> str:
    if keys is None:
        return ""
    changed = [quoted_name(column) for column in columns if column not in keys]
    conflict = f" on conflict ({', '.join(map(quoted_name, keys))})"
    if not changed:
        return f"{conflict} do nothing"
    return f"{conflict} do update set {', '.join(f'{name} = excluded.{name}' for name in changed)}"
