"""One connection for one command, with the database's complaints turned into sentences for a person."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import asyncpg

from noetl_broker.errors import BrokerError, DatabaseFault, NotFoundFault, OperatorFault, PermissionFault, SchemaFault
from noetl_broker.store.faults import is_mixed_up, kind_of, sentence
from noetl_broker.store.migrate import check_version
from noetl_broker.store.pool import COMMAND_SECONDS, Connection, connect, hang_up
from noetl_broker.store.poolers import pooler_fault

# The errors that the SQL functions raise (docs: SQLSTATEs of class NB), by what they mean to a command.
OWN_STATES: dict[str, Callable[[str], BrokerError]] = {
    "NB400": OperatorFault,
    "NB404": NotFoundFault,
    "NB409": BrokerError,
}


@contextlib.asynccontextmanager
async def session(
    dsn: str | None, *, name: str, command_timeout: float | None = COMMAND_SECONDS
) -> AsyncIterator[Connection]:
    """Yield a connection on a schema that we serve; `dsn` None: the PG* variables. Raises the fault that fits.

    `command_timeout` seconds for each statement (None: as long as the server lets it).
    """
    connection = await connect(dsn, name=f"noetl-broker {name}", command_timeout=command_timeout)
    try:
        with translated(connection):
            # A producer may call its functions and nothing else: the version is then not its business.
            with contextlib.suppress(PermissionFault):
                await check_version(connection)
            yield connection
    finally:
        await hang_up(connection)


@contextlib.contextmanager
def translated(connection: Connection | None = None) -> Iterator[None]:
    """Raise what the driver raises as the fault of its owner: the operator, the rights, the schema, the connection.

    What the system refuses while `connection` stands is not of the database, as where our output is read no further.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        raise fault_of(error) from error
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        if isinstance(error, OSError) and error.errno and connection is not None and not connection.is_closed():
            raise
        # To leave a transaction of a dead connection fails in its turn; what the connection died of says more.
        first = error.__context__ if isinstance(error.__context__, asyncpg.PostgresError) else error
        reason = sentence(first) or type(first).__name__
        raise DatabaseFault(f"the connection to the database was lost: {reason}") from error


def fault_of(error: asyncpg.PostgresError) -> BrokerError:
    """Make the fault that a complaint of the server means."""
    state, message = str(error.sqlstate or ""), sentence(error)
    if is_mixed_up(error):
        return pooler_fault()
    if state in OWN_STATES:
        return OWN_STATES[state](message)
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return DatabaseFault(f"{kind_of(error).word}: {message}")
    kinds: tuple[tuple[tuple[type[Any], ...], Callable[[str], BrokerError], str], ...] = (
        ((asyncpg.InsufficientPrivilegeError,), PermissionFault, "the database refuses for want of rights: {}"),
        (
            (
                *(asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError),
                asyncpg.InvalidSchemaNameError,
            ),
            SchemaFault,
            "the database lacks a part of our schema ({}); run noetl-broker migrate",
        ),
        ((asyncpg.DataError,), OperatorFault, "the database refuses the value: {}"),
    )
    for types, fault, text in kinds:
        if isinstance(error, types):
            return fault(text.format(message))
    return DatabaseFault(f"the database does not answer as it should: {message} ({state})")
