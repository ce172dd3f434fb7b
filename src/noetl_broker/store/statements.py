"""Runs the SQL of a playbook's step on a connection of its own and gives its rows as JSON values.

Parameters travel as text: the server reads each as it reads a quoted literal of the type that the statement wants
there, so JSON's few types fit every column. What comes back becomes JSON's own type or a text.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from noetl_broker.errors import PlaybookFault
from noetl_broker.store.bounded import BoundedConnection, TooMuchFault
from noetl_broker.store.dsn import without_secrets
from noetl_broker.store.pool import hang_up, transaction
from noetl_broker.store.results import readers_of, set_codecs
from noetl_broker.store.sql_text import copies_with_client, needs_no_transaction, quoted_name, with_parameter_types

CONNECT_SECONDS = 15.0
ROWS_AT_ONCE = 500
SYNTAX_ERROR = "42601"
# Rows are up to so many times as large on their way as they are as JSON: a 0 in a row(…) takes 16 bytes there.
MOST_ON_THE_WAY = 8
WHOLE = frozenset({"int2", "int4", "int8", "oid"})


class StatementFault(PlaybookFault):
    """Postgres refused a step's statement, or could not be reached for it.

    `sqlstate` is Postgres' code ("" when there was no connection); `retryable` false when the same text can never pass.
    """

    def __init__(self, message: str, *, sqlstate: str = "", retryable: bool = True) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.retryable = retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a step's SQL runs: a `dsn`, or the separate parts (host, port, user, password, database) over it.

    A name without a schema is looked for in `schemas`, in this order; where there are none, where the server would.
    """

    dsn: str | None = field(default=None, repr=False)
    parts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    schemas: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One SQL statement and the values of its `$1`, `$2` …: JSON values."""

    sql: str
    values: Sequence[Any] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What one statement gave: `columns` and `rows` (mappings) if it returns any; `count` of rows touched or given."""

    columns: tuple[str, ...] | None
    rows: list[dict[str, Any]]
    count: int
    status: str


@dataclass(slots=True, kw_only=True)
class Room:
    """What the rows of all statements take as JSON, and the most that they may."""

    most_bytes: int
    used: int = 0

    def take(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Count some rows, and give them; raises StatementFault once there are too many."""
        self.used += len(json.dumps(rows, ensure_ascii=False))
        if self.used > self.most_bytes:
            raise StatementFault(self.fault, retryable=False)
        return rows

    @property
    def fault(self) -> str:
        """What to tell of rows that are too large."""
        return (
            f"the rows are larger than the limit of {self.most_bytes} bytes; select fewer rows or columns, or a part "
            "of a value (left, substr), or add a limit"
        )


async def run_statements(
    target: Target, statements: Sequence[Statement], *, largest_bytes: int, names_differ: bool = False
) -> list[Rows]:
    """Run the statements in one transaction and give what each gave.

    When one of them cannot run in a transaction (vacuum, call, create database, a begin of the author's own) each runs
    by itself. Raises StatementFault; rows of more than about `largest_bytes` of JSON are refused. `names_differ`: so
    are two columns of one name in the rows of the last statement that gives any.
    """
    room = Room(most_bytes=largest_bytes)
    async with _connection(target) as connection:
        connection.bound(largest_bytes * MOST_ON_THE_WAY, room.fault)
        alone = any(needs_no_transaction(statement.sql) for statement in statements)
        results: list[Rows] = []
        async with contextlib.AsyncExitStack() as stack:
            if not alone:
                await stack.enter_async_context(_translated("transaction: "))
                await stack.enter_async_context(transaction(connection, begins_within=None))
            for number, statement in enumerate(statements, 1):
                place = f"statement {number} of {len(statements)}: " if len(statements) > 1 else ""
                async with _translated(place):
                    results.append(await _run(connection, statement, room=room, whole=alone))
            if names_differ:
                _refuse_twins(results)
        return results


def _refuse_twins(results: Sequence[Rows]) -> None:
    """Raise StatementFault where the rows that count have two columns of one name: a mapping holds one of them."""
    columns = next((result.columns for result in reversed(results) if result.columns is not None), ())
    for name in columns:
        if columns.count(name) > 1:
            message = (
                f"the rows have {columns.count(name)} columns of the name {name!r}, and a result holds one of each "
                "name; give each a name of its own: select a.id as a_id, b.id as b_id"
            )
            raise StatementFault(message, retryable=False)


async def _run(connection: Any, statement: Statement, *, room: Room, whole: bool) -> Rows:
    """Run one statement; rows come in portions, so that too large a result is refused before it fills memory."""
    prepared, values = await _prepared(connection, statement)
    attributes = prepared.get_attributes()
    columns = tuple(str(attribute.name) for attribute in attributes)
    readers = readers_of(attributes)
    if whole or not columns:
        rows = room.take(_read(columns, readers, await prepared.fetch(*values)))
    else:
        rows = []
        cursor = await prepared.cursor(*values)
        while records := await cursor.fetch(ROWS_AT_ONCE):
            rows += room.take(_read(columns, readers, records))
    status = str(prepared.get_statusmsg() or "")
    tail = status.rpartition(" ")[2]
    count = len(rows) if columns or not tail.isdigit() else int(tail)
    return Rows(columns=columns or None, rows=rows, count=count, status=status)


async def _prepared(connection: Any, statement: Statement) -> tuple[Any, list[str | None]]:
    if copies_with_client(statement.sql):
        message = "copy to stdout or from stdin has nobody to copy to or from; select the rows, or insert them"
        raise StatementFault(message, retryable=False)
    prepared = await connection.prepare(statement.sql)
    expected = prepared.get_parameters()
    if not expected:
        return prepared, []
    # Learned from the server, then written into the statement: it reads each text as a literal of that type.
    names = [_type_name(kind) for kind in expected]
    if len(names) != len(statement.values):
        message = f"the statement has {len(names)} parameters, but {len(statement.values)} values are given"
        raise StatementFault(message, retryable=False)
    prepared = await connection.prepare(with_parameter_types(statement.sql, names))
    return prepared, [_literal(value, kind.name) for value, kind in zip(statement.values, expected, strict=True)]


def _type_name(kind: Any) -> str:
    """Name a type for a cast, quoted, with its schema."""
    bare = kind.name.removesuffix("[]")
    return f"{quoted_name(kind.schema)}.{quoted_name(bare)}{kind.name[len(bare) :]}"


def _read(
    columns: tuple[str, ...], readers: Sequence[Callable[[Any], Any]], records: Sequence[Any]
) -> list[dict[str, Any]]:
    return [
        {name: read(value) for name, read, value in zip(columns, readers, record.values(), strict=True)}
        for record in records
    ]


def _literal(value: Any, type_name: str) -> str | None:
    """Write a JSON value as the text from which Postgres reads a value of this type."""
    if value is None:
        return None
    if type_name in ("json", "jsonb"):
        return _document(value)
    if type_name.endswith("[]") and isinstance(value, list):
        return "{" + ",".join(_array_item(item, type_name) for item in value) + "}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and type_name in WHOLE and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def _array_item(item: Any, type_name: str) -> str:
    if isinstance(item, list):
        return str(_literal(item, type_name))
    text = _literal(item, type_name.removesuffix("[]"))
    if text is None:
        return "null"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _document(value: Any) -> str:
    """Write a JSON value for a json column; a text that is itself a JSON mapping or list is taken as that."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            json.loads(value)
        except ValueError:
            pass
        else:
            return value
    return json.dumps(value, ensure_ascii=False)


@contextlib.asynccontextmanager
async def _connection(target: Target) -> AsyncIterator[Any]:
    settings = {"application_name": "noetl-broker worker step"}
    async with _translated("cannot connect: ", target.dsn):
        if target.schemas:
            settings["search_path"] = ", ".join(quoted_name(name) for name in target.schemas)
        connection = await asyncpg.connect(
            target.dsn,
            timeout=CONNECT_SECONDS,
            statement_cache_size=0,
            connection_class=BoundedConnection,
            server_settings=settings,
            **target.parts,
        )
    try:
        async with _translated("cannot connect: "):
            await set_codecs(connection)
        yield connection
    finally:
        await hang_up(connection)


@contextlib.asynccontextmanager
async def _translated(place: str, dsn: str | None = None) -> AsyncIterator[None]:
    """Turn what the driver raises into a StatementFault that names the statement and never the connection string."""
    try:
        yield
    except TooMuchFault as error:
        raise StatementFault(f"{place}{error}", retryable=False) from None
    except asyncpg.PostgresError as error:
        if isinstance(error.__cause__, TooMuchFault):  # the connection was cut
            raise StatementFault(f"{place}{error.__cause__}", retryable=False) from None
        sqlstate = str(error.sqlstate or "")
        parts = [place + without_secrets(str(error.args[0]) if error.args else "failed", dsn)]
        parts += [f"{name} {text}" for name in ("detail", "hint") if (text := getattr(error, name, None))]
        # Only what the text itself makes impossible is not worth another try: a missing table may come to be.
        told = f"{'; '.join(parts)} ({sqlstate})"
        raise StatementFault(told, sqlstate=sqlstate, retryable=sqlstate != SYNTAX_ERROR) from None
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, ValueError, TypeError, OverflowError) as error:
        raise StatementFault(place + without_secrets(str(error), dsn), retryable=False) from None
    except (OSError, TimeoutError) as error:
        raise StatementFault(f"{place}{str(error) or type(error).__name__}") from None
