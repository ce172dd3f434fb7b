"""The postgres tool: runs the step's SQL on the server that the step names, or on the worker's database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from noetl_broker.playbook.keywords import WITH_RESULT
from noetl_broker.sql_text import numbered, split_statements
from noetl_broker.store.connect.dsn import password_in
from noetl_broker.worker.credentials import entries
from noetl_broker.worker.errors import FinalFault, ToolFault
from noetl_broker.worker.sql.run import SqlStatement, SqlTarget, StatementFault, StatementResult, run_statements
from noetl_broker.worker.tools.task import RESULT_BYTES, Task, mapping

TEXTS = ("command", "commands", "query", "sql", "statement")
# The parts of an address by asyncpg's names, with the keys that playbooks use.
PARTS: Mapping[str, tuple[str, ...]] = {
    "host": ("db_host", "host", "pg_host"),
    "port": ("db_port", "port", "pg_port"),
    "user": ("db_user", "user", "username", "pg_user"),
    "password": ("db_password", "password", "pg_password"),
    "database": ("db_name", "database", "dbname", "db", "pg_db"),
    "schema": ("db_schema", "schema", "pg_schema"),
}
CONNECTION_TEXTS = ("dsn", "db_conn_string", "connection_string", "url", "text")
# Parts that choose the server.
ADDRESS = frozenset({"dsn", "host", "port"})
# Keys of an address in a step and in its inputs. Of inputs, only names that cannot mean anything else.
STEP_KEYS = frozenset({"dsn", "db_conn_string"}.union(*PARTS.values()))
INPUT_KEYS = frozenset(key for key in STEP_KEYS if key == "dsn" or key.startswith(("db_", "pg_")))


async def run_postgres(task: Task) -> Any:
    """Return {rows, columns, row_count, command_0, …}. The first three are of the last statement that returns rows."""
    results = await run_sql(task, statements_of(task), names_differ=True)
    answer: dict[str, Any] = {"rows": [], "columns": [], "row_count": sum(result.count for result in results)}
    for number, result in enumerate(results):
        command = {"status": "success", "row_count": result.count, "message": result.status}
        if result.columns is not None:
            command |= {"rows": result.rows, "columns": list(result.columns)}
            answer |= {"rows": result.rows, "columns": list(result.columns), "row_count": result.count}
        answer[f"command_{number}"] = command
    return answer


async def run_sql(
    task: Task, statements: Sequence[SqlStatement], *, names_differ: bool = False
) -> list[StatementResult]:
    """Run statements on the step's target. Raises ToolFault of kind `postgres` with `sqlstate`.

    `names_differ`: two columns of one name in the returned rows are a fault.
    """
    target, largest_bytes = target_of(task), RESULT_BYTES // 2  # the result holds the rows of the last statement twice
    idle = task.shared.sql_connections
    inside = task.own_transaction().statements() if commits_with_result(task, target) else None
    try:
        return await run_statements(
            target, statements, largest_bytes=largest_bytes, names_differ=names_differ, idle=idle, inside=inside
        )
    except StatementFault as fault:
        raise ToolFault(
            f"step '{task.name}': {fault}", kind="postgres", retryable=fault.retryable, sqlstate=fault.sqlstate or None
        ) from None


def commits_with_result(task: Task, target: SqlTarget) -> bool:
    """Whether the statements commit with the completion of the job. Raises ToolFault for another database."""
    word = task.first("commit")
    if word is None:  # a `save` joins the transaction that its step has used
        joins = task.transaction is not None and task.transaction.is_used
        return joins and target == SqlTarget(dsn=task.shared.dsn)
    if word != WITH_RESULT:
        raise task.fault(f"commit is {word!r:.80}; write commit: {WITH_RESULT}, or nothing", kind="bad_value")
    if target != SqlTarget(dsn=task.shared.dsn):
        raise task.fault(
            f"commit: {WITH_RESULT} needs the database of the broker, and this step names another one; "
            "remove its address and auth, or remove commit",
            kind="bad_value",
        )
    return True


def statements_of(task: Task) -> list[SqlStatement]:
    """The step's SQL with its values: `params` or `parameters`, a list for `$1` or a mapping for `:name`."""
    texts = _texts(task)
    pieces = [piece for text in texts for piece in split_statements(text)]
    if not pieces:
        raise task.fault("there is no SQL; put it under `command`", kind="bad_job")
    values = task.first("parameters", "params")
    if isinstance(values, Mapping):
        return [SqlStatement(sql=sql, values=bound) for sql, bound in (numbered(piece, values) for piece in pieces)]
    if values is None:
        return [SqlStatement(sql=piece) for piece in pieces]
    if len(pieces) > 1:
        raise task.fault(
            "a list of parameters belongs to one statement, but there are "
            f"{len(pieces)}; use one statement, or a mapping with :name in the SQL",
            kind="bad_job",
        )
    return [SqlStatement(sql=pieces[0], values=values if isinstance(values, list) else [values])]


def _texts(task: Task) -> list[str]:
    value = task.first(*TEXTS)
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item is not None]


def target_of(task: Task) -> SqlTarget:
    """The database of the SQL: `auth`, overridden by `connection`, by `db_*` inputs, and by the step's own keys.

    Without a host or a connection string it is the worker's server; without any key, the worker's database.

    A password is sent only to the server that its owner named. Others may choose the inputs, so an address among them
    replaces `auth` and `connection` completely. The worker's login is used for its own server only.
    """
    given: dict[str, Any] = {}
    for source in _sources(task):
        given = _override(given, _address(source))
    inputs, own = (
        _address({key: source[key] for key in keys & source.keys()})
        for keys, source in ((INPUT_KEYS, task.args), (STEP_KEYS, task.action))
    )
    if "dsn" not in own and (ADDRESS & inputs.keys()) - own.keys():
        if own.get("password"):
            message = "the address for the password of the step is among its inputs; say both in one place"
            raise task.fault(message, kind="bad_value")
        given = {}
    given = _override(_override(given, inputs), own)
    dsn, schemas = given.pop("dsn", None), given.pop("schema", ())
    if {"host", "port"} & given.keys() or dsn not in (None, task.shared.dsn):
        # Otherwise the driver would use PGPASSWORD or a passfile.
        given.setdefault("password", password_in(dsn))
    if dsn is None and "host" not in given:
        dsn = task.shared.dsn
    return SqlTarget(dsn=dsn, parts=given, schemas=schemas)


def _override(base: dict[str, Any], address: dict[str, Any]) -> dict[str, Any]:
    """Override parts of an address. A connection string replaces the whole address."""
    return address if "dsn" in address else base | address


def _sources(task: Task) -> Iterator[Mapping[str, Any]]:
    """The credentials and the `connection` of the step; a later one overrides an earlier one."""
    found = entries(task.first("auth", "credential", "credentials"), task.shared.environment)
    fitting = [entry for entry in found if entry.get("type") in (None, "postgres", "postgresql", "basic")]
    if found and not any(_address(entry) for entry in fitting):
        raise task.fault("auth holds no address and no login of a Postgres", kind="bad_value")
    yield from fitting
    connection = task.first("connection")
    yield {"dsn": connection} if isinstance(connection, str) else mapping(connection, "connection")


def _address(source: Mapping[str, Any]) -> dict[str, Any]:
    """An address: `dsn`, and each of PARTS. Empty values are ignored."""
    dsn = next((str(source[key]) for key in CONNECTION_TEXTS if source.get(key)), None)
    parts: dict[str, Any] = {}
    for part, names in PARTS.items():
        ignored = (None,) if part == "password" else (None, "")
        value = next((source[name] for name in names if source.get(name) not in ignored), None)
        if value is not None:
            parts[part] = READERS.get(part, str)(value)
    return parts if dsn is None else parts | {"dsn": dsn}


def _port(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise FinalFault(f"the port must be a number, not {value!r}", kind="bad_value") from None


def _schemas(value: Any) -> list[str]:
    """The name of a schema, or names separated by commas."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else []
    if not all(names) or not names:
        raise FinalFault(f"the schema must be a name, not {value!r}", kind="bad_value")
    return names


READERS: Mapping[str, Callable[[Any], Any]] = {"port": _port, "schema": _schemas}
