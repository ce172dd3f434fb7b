"""The postgres tool: runs the step's SQL where the step says, or on the worker's own database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from noetl_broker.store.sql_text import numbered, split_statements
from noetl_broker.store.statements import Rows, Statement, StatementFault, Target, run_statements
from noetl_broker.worker.credentials import entries
from noetl_broker.worker.faults import ToolFault
from noetl_broker.worker.tools.task import RESULT_BYTES, Task, mapping

TEXTS = ("command", "commands", "query", "sql", "statement")
# asyncpg's name for each part of an address, and the keys that playbooks use for it.
PARTS: Mapping[str, tuple[str, ...]] = {
    "host": ("db_host", "host", "pg_host"),
    "port": ("db_port", "port", "pg_port"),
    "user": ("db_user", "user", "username", "pg_user"),
    "password": ("db_password", "password", "pg_password"),
    "database": ("db_name", "database", "dbname", "db", "pg_db"),
}
CONNECTION_TEXTS = ("dsn", "db_conn_string", "connection_string", "url", "text")


async def run_postgres(task: Task) -> Any:
    """Give {rows, columns, row_count, command_0, command_1, …}; the first three are of the last statement with rows."""
    results = await run_sql(task, statements_of(task))
    answer: dict[str, Any] = {"rows": [], "columns": [], "row_count": sum(result.count for result in results)}
    for number, result in enumerate(results):
        told = {"status": "success", "row_count": result.count, "message": result.status}
        if result.columns is not None:
            told |= {"rows": result.rows, "columns": list(result.columns)}
            answer |= {"rows": result.rows, "columns": list(result.columns), "row_count": result.count}
        answer[f"command_{number}"] = told
    return answer


async def run_sql(task: Task, statements: Sequence[Statement]) -> list[Rows]:
    """Run statements at the step's target; raises ToolFault of kind `postgres` with `sqlstate`."""
    try:
        # The rows of the last statement stand in the answer twice.
        return await run_statements(target_of(task), statements, largest_bytes=RESULT_BYTES // 2)
    except StatementFault as fault:
        raise ToolFault(
            f"step '{task.name}': {fault}", kind="postgres", retryable=fault.retryable, sqlstate=fault.sqlstate or None
        ) from None


def statements_of(task: Task) -> list[Statement]:
    """Read the step's SQL and the values for it: `params`/`parameters` as a list ($1) or a mapping (:name)."""
    texts = _texts(task)
    pieces = [piece for text in texts for piece in split_statements(text)]
    if not pieces:
        raise task.fault("there is no SQL; put it under `command`", kind="bad_job")
    values = task.first("parameters", "params")
    if isinstance(values, Mapping):
        return [Statement(sql=sql, values=bound) for sql, bound in (numbered(piece, values) for piece in pieces)]
    if values is None:
        return [Statement(sql=piece) for piece in pieces]
    if len(pieces) > 1:
        raise task.fault(
            "a list of parameters belongs to one statement, but there are "
            f"{len(pieces)}; use one statement, or a mapping with :name in the SQL",
            kind="bad_job",
        )
    return [Statement(sql=pieces[0], values=values if isinstance(values, list) else [values])]


def _texts(task: Task) -> list[str]:
    value = task.first(*TEXTS)
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item is not None]


def target_of(task: Task) -> Target:
    """Find where the SQL runs: `auth`, over it `connection`, `db_*` inputs and keys; else the worker's database."""
    given: dict[str, Any] = {}
    for entry in entries(task.first("auth", "credential"), task.lent.environment):
        if entry.get("type") in (None, "postgres", "postgresql", "basic"):
            given |= {key: value for key, value in entry.items() if value is not None}
    connection = task.first("connection")
    given |= {"dsn": connection} if isinstance(connection, str) else mapping(connection, "connection")
    prefixed = {key for names in PARTS.values() for key in names if key.startswith(("db_", "pg_"))}
    for source in (task.args, task.action):
        given |= {key: source[key] for key in (*prefixed, "dsn", "db_conn_string") if source.get(key) is not None}
    dsn = next((str(given[key]) for key in CONNECTION_TEXTS if given.get(key)), None)
    parts = {
        part: value
        for part, names in PARTS.items()
        if (value := next((given[name] for name in names if given.get(name) is not None), None)) is not None
    }
    if "port" in parts:
        parts["port"] = _port(parts["port"])
    if dsn is None and not parts:
        return Target(dsn=task.lent.dsn)
    return Target(dsn=dsn, parts=parts)


def _port(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ToolFault(f"the port must be a number, not {value!r}", kind="bad_value", retryable=False) from None
