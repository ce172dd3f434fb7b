"""One connection for one command; errors of the driver become faults with a message for people."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import asyncpg

from noetl_broker.errors import (
    BrokerError,
    DatabaseFault,
    ForbiddenFault,
    MovedFault,
    NotFoundFault,
    OperatorFault,
    PermissionFault,
    SchemaFault,
)
from noetl_broker.store.connect.bucket_connections import BucketConnections, Place, checked_bucket
from noetl_broker.store.connect.buckets import HasBuckets, bucket_of_id
from noetl_broker.store.connect.connection import COMMAND_SECONDS, Connection, close_quickly, connect
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.migrations import check_version
from noetl_broker.store.connect.server_checks import pooler_fault
from noetl_broker.store.connect.sqlstates import fault_class_of, is_mixed_up, is_moved, message_of

# The SQLSTATEs that our SQL functions raise, and the fault of each.
OWN_STATES: dict[str, Callable[[str], BrokerError]] = {
    "NB400": OperatorFault,
    "NB403": ForbiddenFault,
    "NB404": NotFoundFault,
    "NB409": BrokerError,
    "NB421": OperatorFault,
}


@contextlib.asynccontextmanager
async def session(
    database: Database,
    *,
    name: str,
    command_timeout: float | None = COMMAND_SECONDS,
    of: int | None = None,
    is_checked: bool = True,
) -> AsyncIterator[Connection]:
    """Yield a connection on a schema that we serve; raises the fault that fits.

    `command_timeout` seconds for each statement (None: as long as the server lets it). `of`: an id, in whose bucket the
    connection is, if there are buckets. Not `is_checked`: the schema may be that of an installation.
    """
    connection = await connect(database, name=f"noetl-broker {name}", command_timeout=command_timeout)
    try:
        with translate_faults(connection):
            # A producer may only call its functions: it cannot read the version.
            with contextlib.suppress(PermissionFault):
                if is_checked:
                    await check_version(connection)
            yield connection
    except HasBuckets as fault:
        if of is None:
            raise
        bucket = database.bucket(checked_bucket(of, fault.count, database))
    else:
        return
    finally:
        await close_quickly(connection)
    async with session(bucket, name=name, command_timeout=command_timeout) as own:
        yield own


@contextlib.asynccontextmanager
async def place(database: Database, *, name: str) -> AsyncIterator[Place]:
    """Yield a connection as `session` does; of an installation, the connections to its buckets."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            found: Place = await stack.enter_async_context(session(database, name=name))
        except HasBuckets as fault:

            def opens(one: Database) -> contextlib.AbstractAsyncContextManager[Connection]:
                return session(one, name=name, is_checked=one is not database)

            found = BucketConnections(database, fault.count, opens)
        yield found


async def schemas_of(
    database: Database, ids: Sequence[int] = (), *, name: str, command_timeout: float | None = COMMAND_SECONDS
) -> list[Database]:
    """The schema; of an installation, the buckets that have these ids, or all buckets."""
    try:
        async with session(database, name=name, command_timeout=command_timeout):
            return [database]
    except HasBuckets as fault:
        wanted = {checked_bucket(one, fault.count, database) for one in ids} or {*range(fault.count)}
        return [database.bucket(number) for number in sorted(wanted)]


def ids_in(database: Database, ids: Sequence[int]) -> list[int]:
    """Those of these ids that are of a schema: all, unless it is a bucket."""
    return [one for one in ids if database.installation is None or database.bucket(bucket_of_id(one)) == database]


@contextlib.contextmanager
def translate_faults(connection: Connection | None = None) -> Iterator[None]:
    """Raise the driver's errors as faults, by who must act: operator, rights, schema or connection.

    A system error while `connection` is open is raised unchanged: it does not come from the database, but for example
    from a closed output.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        raise fault_of(error) from error
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        if isinstance(error, OSError) and error.errno and connection is not None and not connection.is_closed():
            raise
        if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
            # The driver cannot send it: a number past 64 bits, say.
            raise OperatorFault(f"the database refuses the value: {error}") from error
        # Leaving the transaction of a dead connection fails too; the server's reason is in the context.
        first = error.__context__ if isinstance(error.__context__, asyncpg.PostgresError) else error
        reason = message_of(first) or type(first).__name__
        raise DatabaseFault(f"the connection to the database was lost: {reason}") from error


def fault_of(error: asyncpg.PostgresError) -> BrokerError:
    """The fault that an error of the server means."""
    state, message = str(error.sqlstate or ""), message_of(error)
    if is_mixed_up(error):
        return pooler_fault()
    if is_moved(error):
        return MovedFault(f"{fault_class_of(error).reason}; try again")
    if state in OWN_STATES:
        return OWN_STATES[state](message)
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return DatabaseFault(f"{fault_class_of(error).reason}: {message}")
    kinds: tuple[tuple[tuple[type[Any], ...], Callable[[str], BrokerError], str], ...] = (
        (
            (asyncpg.InsufficientPrivilegeError,),
            PermissionFault,
            "the database refuses, because a right is missing: {}",
        ),
        (
            (
                *(asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError),
                asyncpg.InvalidSchemaNameError,
            ),
            SchemaFault,
            "the database lacks a part of our schema ({}); run noetl-broker migrate",
        ),
        (
            (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError),
            OperatorFault,
            "a text has the character U+0000, which the database cannot hold; leave it out",
        ),
        ((asyncpg.DataError,), OperatorFault, "the database refuses the value: {}"),
    )
    for types, fault, text in kinds:
        if isinstance(error, types):
            return fault(text.format(message))
    return DatabaseFault(f"the database does not answer as it should: {message} ({state})")
