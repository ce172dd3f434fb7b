"""Runs the SQL of a postgres step on its own connection, and returns the rows as JSON values.

After a step without a fault, the session is reset. It then waits for a step with the same target and login. After a
fault, a cancel or a timeout it is closed. Otherwise a late cancel request could hit the statement of another step.

Parameters are sent as text. The server reads each as a literal of the expected type, so JSON values fit every column
type. Values in rows become JSON types or text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from noetl_broker.errors import PlaybookFault
from noetl_broker.sql_text import (
    copies_with_client,
    lasts_until_disconnect,
    needs_empty_database,
    needs_no_transaction,
    quoted_name,
    with_parameter_types,
)
from noetl_broker.store.connect.connection import CALL_SECONDS, close_quickly, transaction
from noetl_broker.store.connect.dsn import without_secrets
from noetl_broker.worker.idle_connections import IdleConnections
from noetl_broker.worker.sql.bounded_connection import BoundedConnection, TooMuchFault
from noetl_broker.worker.sql.values import readers_of, reset_codecs, set_codecs

CONNECT_SECONDS = 15.0
READ_ROWS = 500
SYNTAX_ERROR = "42601"
# How much larger a row may be in the protocol than as JSON: a 0 in a row(…) has 16 bytes there.
PROTOCOL_FACTOR = 8
RESET = ("discard all", "reset role")  # a login may have a role by default
DRIVER_FAULTS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
INTEGERS = frozenset({"int2", "int4", "int8", "oid"})


class StatementFault(PlaybookFault):
    """A statement of a step failed.

    `sqlstate` is the code of Postgres, "" without a connection. `retryable` is false if the text can never succeed.
    """

    def __init__(self, message: str, *, sqlstate: str = "", retryable: bool = True) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.retryable = retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlTarget:
    """The database of a step's SQL: a `dsn`, and parts (host, port, user, password, database) that override it.

    `schemas` is the search path; if it is empty, the server's.
    """

    dsn: str | None = field(default=None, repr=False)
    parts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    schemas: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlStatement:
    """One SQL statement and the values of its `$1`, `$2` …: JSON values."""

    sql: str
    values: Sequence[Any] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementResult:
    """The result of one statement: `columns` and `rows` (mappings) if it returns rows; `count` of rows."""

    columns: tuple[str, ...] | None
    rows: list[dict[str, Any]]
    count: int
    status: str


@dataclass(slots=True, kw_only=True)
class SizeLimit:
    """The JSON size of the rows of all statements, and its limit."""

    most_bytes: int
    used: int = 0

    def take(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Count these rows and return them. Raises StatementFault when they are too large."""
        self.used += len(json.dumps(rows, ensure_ascii=False))
        if self.used > self.most_bytes:
            raise StatementFault(self.fault, retryable=False)
        return rows

    @property
    def fault(self) -> str:
        """The message for rows that are too large."""
        return (
            f"the rows are larger than the limit of {self.most_bytes} bytes; select fewer rows or columns, or a part "
            "of a value (left, substr), or add a limit"
        )


async def run_statements(
    target: SqlTarget,
    statements: Sequence[SqlStatement],
    *,
    largest_bytes: int,
    names_differ: bool = False,
    idle: IdleConnections[BoundedConnection] | None = None,
    inside: AbstractAsyncContextManager[BoundedConnection] | None = None,
) -> list[StatementResult]:
    """Run the statements in one transaction and return their results.

    If one of them cannot run in a transaction (vacuum, call, create database, begin), each runs by itself. Raises
    StatementFault, also for rows of more than about `largest_bytes` of JSON. With `names_differ`, two columns of one
    name in the last rows are a fault too. `idle`: where connections come from and wait; None: each is closed.
    `inside` gives the connection of a transaction that is open; then `target` and `idle` are not used.
    """
    limit = SizeLimit(most_bytes=largest_bytes)
    alone = any(needs_no_transaction(statement.sql) for statement in statements)
    if idle is not None and any(needs_empty_database(statement.sql) for statement in statements):
        idle.clear()
    if any(lasts_until_disconnect(statement.sql) for statement in statements):
        idle = None
    if alone and inside is not None:
        message = "a statement cannot run in the transaction of the completion; give it a step of its own"
        raise StatementFault(message, retryable=False)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_translated("transaction: "))
        if inside is None:
            connection = await _enter_session(stack, target, idle, limit=limit, alone=alone)
        else:
            connection = await _enter_transaction(stack, inside, limit=limit)
        results: list[StatementResult] = []
        for number, statement in enumerate(statements, 1):
            prefix = f"statement {number} of {len(statements)}: " if len(statements) > 1 else ""
            async with _translated(prefix):
                results.append(await _run(connection, statement, limit=limit))
        if names_differ:
            _refuse_duplicate_columns(results)
    return results


async def _enter_session(
    stack: contextlib.AsyncExitStack,
    target: SqlTarget,
    idle: IdleConnections[BoundedConnection] | None,
    *,
    limit: SizeLimit,
    alone: bool,
) -> BoundedConnection:
    """The connection of a step, which ends with the stack. A new one replaces a dead idle connection."""
    key = b"" if idle is None else idle.key(target.dsn, target.parts, target.schemas)
    if idle is not None and (kept := idle.take(key)) is not None:
        session = _session(kept, idle, key, limit=limit, alone=alone, answers_within=CALL_SECONDS)
        try:
            return await stack.enter_async_context(session)
        except DRIVER_FAULTS:  # nothing of the step was sent
            idle.forget(key)
    new = await _connect(target)
    return await stack.enter_async_context(_session(new, idle, key, limit=limit, alone=alone))


async def _enter_transaction(
    stack: contextlib.AsyncExitStack, inside: AbstractAsyncContextManager[BoundedConnection], *, limit: SizeLimit
) -> BoundedConnection:
    """The connection of an open transaction, which reads values as those of steps do until the stack ends."""
    connection = await stack.enter_async_context(inside)
    connection.bound(limit.most_bytes * PROTOCOL_FACTOR, limit.fault)
    await set_codecs(connection)
    stack.push_async_callback(reset_codecs, connection)
    return connection


@contextlib.asynccontextmanager
async def _session(
    connection: BoundedConnection,
    idle: IdleConnections[BoundedConnection] | None,
    key: bytes,
    *,
    limit: SizeLimit,
    alone: bool,
    answers_within: float | None = None,
) -> AsyncIterator[BoundedConnection]:
    """Begin the transaction of a step, unless `alone`; let the connection wait at the end, or close it after a fault.

    `answers_within`: seconds until the server has answered for the first time; None: no limit.
    """
    begun = False
    try:
        connection.bound(limit.most_bytes * PROTOCOL_FACTOR, limit.fault)
        if alone:
            if answers_within is not None:
                async with asyncio.timeout(answers_within):
                    await connection.execute("select")
            begun = True
            yield connection
        else:
            async with transaction(connection, begins_within=answers_within):
                begun = True
                yield connection
    except BaseException:
        if begun:
            await close_quickly(connection)
        else:
            connection.terminate()
        raise
    if idle is None or not await reset(connection):
        await close_quickly(connection)
    else:
        idle.give_back(key, connection)


async def reset(connection: BoundedConnection) -> bool:
    """Remove all that a step left in its session; False if that fails, or if a transaction is open."""
    if connection.is_closed() or connection.is_in_transaction():
        return False
    try:
        async with asyncio.timeout(CALL_SECONDS):
            for statement in RESET:
                await connection.execute(statement)
            await connection.reload_schema_state()  # types may change until the next step
    except DRIVER_FAULTS:
        return False
    except BaseException:
        connection.terminate()
        raise
    return True


def _refuse_duplicate_columns(results: Sequence[StatementResult]) -> None:
    """Raise StatementFault for two columns of one name in the last rows: a mapping holds only one of them."""
    columns = next((result.columns for result in reversed(results) if result.columns is not None), ())
    for name in columns:
        if columns.count(name) > 1:
            message = (
                f"the rows have {columns.count(name)} columns of the name {name!r}, and a result holds one of each "
                "name; give each a name of its own: select a.id as a_id, b.id as b_id"
            )
            raise StatementFault(message, retryable=False)


async def _run(connection: Any, statement: SqlStatement, *, limit: SizeLimit) -> StatementResult:
    """Run one statement. Rows are read in portions, so that a large result is refused before it fills the memory."""
    prepared, values = await _prepared(connection, statement)
    attributes = prepared.get_attributes()
    columns = tuple(str(attribute.name) for attribute in attributes)
    readers = readers_of(attributes)
    records = await prepared.fetch(*values)  # the connection is cut when they are too large
    rows: list[dict[str, Any]] = []
    for start in range(0, len(records), READ_ROWS):
        rows += limit.take(_read(columns, readers, records[start : start + READ_ROWS]))
    status = str(prepared.get_statusmsg() or "")
    tail = status.rpartition(" ")[2]
    count = len(rows) if columns or not tail.isdigit() else int(tail)
    return StatementResult(columns=columns or None, rows=rows, count=count, status=status)


async def _prepared(connection: Any, statement: SqlStatement) -> tuple[Any, list[str | None]]:
    if copies_with_client(statement.sql):
        message = "copy to stdout and copy from stdin have no client here; select the rows, or insert them"
        raise StatementFault(message, retryable=False)
    prepared = await connection.prepare(statement.sql)
    expected = prepared.get_parameters()
    if not expected:
        return prepared, []
    # Cast each parameter to the expected type, so the server reads the text as a literal of that type.
    names = [_type_name(kind) for kind in expected]
    if len(names) != len(statement.values):
        message = f"the statement has {len(names)} parameters, but {len(statement.values)} values are given"
        raise StatementFault(message, retryable=False)
    prepared = await connection.prepare(with_parameter_types(statement.sql, names))
    return prepared, [_literal(value, kind.name) for value, kind in zip(statement.values, expected, strict=True)]


def _type_name(kind: Any) -> str:
    """The name of a type for a cast, quoted, with its schema."""
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
    """A JSON value as a literal of this type."""
    if value is None:
        return None
    if type_name in ("json", "jsonb"):
        return _document(value)
    if type_name.endswith("[]") and isinstance(value, list):
        return "{" + ",".join(_array_item(item, type_name) for item in value) + "}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and type_name in INTEGERS and value.is_integer():
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
    """A JSON value for a json column. A text that is a JSON mapping or list is stored as such."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            json.loads(value)
        except ValueError:
            pass
        else:
            return value
    return json.dumps(value, ensure_ascii=False)


async def _connect(target: SqlTarget) -> BoundedConnection:
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
            await set_codecs(connection)
        except BaseException:
            connection.terminate()
            raise
    return connection


@contextlib.asynccontextmanager
async def _translated(prefix: str, dsn: str | None = None) -> AsyncIterator[None]:
    """Raise errors of the driver as a StatementFault that names the statement, and never the connection string."""
    try:
        yield
    except TooMuchFault as error:
        raise StatementFault(f"{prefix}{error}", retryable=False) from None
    except asyncpg.PostgresError as error:
        if isinstance(error.__cause__, TooMuchFault):  # the connection was cut
            raise StatementFault(f"{prefix}{error.__cause__}", retryable=False) from None
        sqlstate = str(error.sqlstate or "")
        parts = [prefix + without_secrets(str(error.args[0]) if error.args else "failed", dsn)]
        parts += [f"{name} {text}" for name in ("detail", "hint") if (text := getattr(error, name, None))]
        # Only a syntax error cannot be mended by a retry: a missing table may be created.
        message = f"{'; '.join(parts)} ({sqlstate})"
        raise StatementFault(message, sqlstate=sqlstate, retryable=sqlstate != SYNTAX_ERROR) from None
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, ValueError, TypeError, OverflowError) as error:
        raise StatementFault(prefix + without_secrets(str(error), dsn), retryable=False) from None
    except (OSError, TimeoutError) as error:
        raise StatementFault(f"{prefix}{str(error) or type(error).__name__}") from None
