"""Connections and pools: session settings, schema, time limits, and the fault that each error becomes.

Each connection limits its statements, locks and idle transactions. So a stopped broker loses its locks within seconds,
and its late commit is refused. The hot path uses generic plans by index. A plan that was made for an empty table must
not scan it when it is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import cache, partial, wraps
from types import MappingProxyType
from typing import Any, Literal

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from noetl_broker.errors import BrokerError, DatabaseFault, OperatorFault, PermissionFault
from noetl_broker.store.connect.dsn import Database, database_names, without_secrets
from noetl_broker.store.connect.nodes import is_elsewhere, open_at_node
from noetl_broker.store.connect.schema_name import DEFAULT_SCHEMA, application_name, rendered
from noetl_broker.store.connect.server_checks import (
    ReadOnly,
    pooler_fault,
    read_only_fault,
    refuse_mixing,
    why_read_only,
)
from noetl_broker.store.connect.sqlstates import Remedy, fault_class_of, is_mixed_up, is_transient
from noetl_broker.store.json_codec import dump_json, load_json, load_jsonb
from noetl_broker.store.queries import sql

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
Pool = asyncpg.Pool
Check = Callable[[Connection], Awaitable[None]]
Takes = Literal["reads", "writes"]  # what the server must accept; a DSN may name several
NAMING = ("PGHOST", "PGPORT", "PGDATABASE", "PGSERVICE")  # variables that name a database
CONNECT_SECONDS = 10.0
LISTEN_SECONDS = CONNECT_SECONDS + 5.0  # LISTEN reads the whole unread notification queue
CALL_SECONDS = 5.0  # for quick statements: a connection without an answer by then is dead
COMMAND_SECONDS = 60.0  # for a statement of a command
ANSWER_SECONDS = 35.0  # more than statement_timeout: a connection without an answer by then is dead
CLOSE_SECONDS = 2.0
TRANSACTION_TIMEOUT_SINCE = 17
TRANSACTION_SECONDS = 20.0  # that a transaction of a pool may take
# The methods of the driver's connection whose first argument is a statement or a channel.
TAKING_TEXT = (
    *("execute", "executemany", "fetch", "fetchmany", "fetchrow", "fetchval", "prepare", "cursor"),
    *("add_listener", "remove_listener"),
)

SESSION = {
    "statement_timeout": "30s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "4",
    "tcp_user_timeout": "15s",
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",  # a lock and what is read under it need two snapshots
}
HOT_PATH = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


async def connect(
    database: Database, *, name: str, command_timeout: float | None = COMMAND_SECONDS, takes: Takes = "reads"
) -> asyncpg.Connection[Any]:
    """One connection outside a pool; raises the fault that fits.

    `command_timeout`: seconds for each statement; None: only the server's limit. `takes` "writes": the server must
    accept writes, unless the DSN says something else.
    """
    dsn = database.dsn
    try:
        connection = await open_at_node(
            database,
            partial(
                asyncpg.connect,
                dsn,
                timeout=CONNECT_SECONDS,
                connection_class=connection_class(database.schema, database.installation),
                server_settings={"application_name": application_name(name, database.schema), **SESSION},
                command_timeout=command_timeout,
                target_session_attrs=_wanted(dsn, takes),
            ),
        )
        try:
            await _set_codecs(connection)
        except BaseException:
            connection.terminate()
            raise
    except asyncpg.exceptions.TargetServerAttributeNotMatched:
        raise read_only_fault(await _why_read_only(database, name)) from None
    except Exception as error:  # noqa: BLE001 - becomes the fault that fits
        raise connection_fault(error, dsn) from None
    return connection


async def _why_read_only(database: Database, name: str) -> ReadOnly | None:
    """Why a server takes no writes; None if it does not say."""
    try:
        connection = await connect(database, name=name)
    except BrokerError:
        return None
    try:
        async with asyncio.timeout(CALL_SECONDS):
            row = await connection.fetchrow(sql("examine_read_only"))
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
    finally:
        connection.terminate()
    return why_read_only(dict(row)) if row is not None else None


async def create_pool(
    database: Database,
    *,
    name: str,
    size: int,
    hot: bool = False,
    check: Check | None = None,
    session: Mapping[str, str] = MappingProxyType({}),
    transaction_seconds: float = TRANSACTION_SECONDS,
) -> asyncpg.Pool[Any]:
    """A pool of at most `size` connections to a server that accepts writes; `hot`: with the plans of the hot path.

    A first connection tests the server and runs `check`; the pool connects on demand. `session` has settings of each
    session, in place of ours. The server ends a transaction after `transaction_seconds`. Raises the fault that fits.
    """
    dsn = database.dsn
    ours = {**SESSION, **(HOT_PATH if hot else {}), **session}
    settings = {"application_name": application_name(name, database.schema), **ours}
    first = await connect(database, name=name, takes="writes")
    try:
        if first.get_server_version().major >= TRANSACTION_TIMEOUT_SINCE:
            settings["transaction_timeout"] = f"{transaction_seconds:.0f}s"
        await _refuse_mixing(first, database)
        if check is not None:
            await check(first)
    except Exception as error:  # noqa: BLE001 - becomes the fault that fits
        raise connection_fault(error, dsn) from None
    finally:
        await close_quickly(first)
    try:
        return await asyncpg.create_pool(
            dsn, min_size=0, max_size=size, init=partial(_set_up, database=database), server_settings=settings,
            connect=partial(_connect_of_pool, database),
            connection_class=connection_class(database.schema, database.installation),
            command_timeout=ANSWER_SECONDS, timeout=CONNECT_SECONDS, max_inactive_connection_lifetime=0, reset=_keep,
            target_session_attrs=_wanted(dsn, "writes"),
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - becomes the fault that fits
        raise connection_fault(error, dsn) from None


async def _connect_of_pool(database: Database, *arguments: Any, **options: Any) -> asyncpg.Connection[Any]:
    """What the pool calls in place of the driver's function."""
    return await open_at_node(database, partial(asyncpg.connect, *arguments, **options))


def schema_of(connection: Connection) -> str:
    """The name of the schema that a connection uses."""
    return str(getattr(connection, "schema", DEFAULT_SCHEMA))


def named_of(connection: Connection) -> str:
    """The schema that people name in commands: of a bucket, that of its installation."""
    return str(getattr(connection, "installation", None) or schema_of(connection))


@cache
def connection_class(schema: str, installation: str | None = None) -> type[asyncpg.Connection[Any]]:
    """The driver's class of connections, which renders each text that it sends for the schema."""
    methods: dict[str, Any] = {"__slots__": (), "schema": schema, "installation": installation}
    if schema != DEFAULT_SCHEMA:
        methods["__slots__"] = ("shards",)
        methods |= {name: _rendering(getattr(asyncpg.Connection, name), schema, installation) for name in TAKING_TEXT}
    return type("Connection", (asyncpg.Connection,), methods)


def _rendering(method: Callable[..., Any], schema: str, installation: str | None) -> Callable[..., Any]:
    """The method with its first argument, a statement or a channel, rendered."""

    @wraps(method)
    def render(self: object, text: str, *arguments: Any, **options: Any) -> Any:
        shards = getattr(self, "shards", None)
        return method(self, rendered(text, schema, installation, shards), *arguments, **options)

    return render


def connection_fault(error: Exception, dsn: str | None) -> Exception:
    """The fault for an operator of a failed connection; an unknown error is returned unchanged.

    The driver's error must not be its cause, because its message may show a part of the password.
    """
    if isinstance(error, BrokerError):
        return error
    if is_mixed_up(error):
        return pooler_fault()
    if _lacks_user(error):
        return OperatorFault("the DSN names no user, and the account that runs this has no name to take instead")
    kinds: list[tuple[tuple[type[Exception], ...], Callable[[str], Exception], str]] = [
        # first, because asyncpg counts it among the faults of a connection too
        ((asyncpg.exceptions.ClientConfigurationError, ValueError), OperatorFault, "the DSN is not valid"),
        ((asyncpg.InvalidAuthorizationSpecificationError,), PermissionFault, "the database refuses the login"),
        ((asyncpg.InsufficientPrivilegeError,), PermissionFault, "the database refuses, because a right is missing"),
        ((asyncpg.InvalidCatalogNameError,), OperatorFault, "there is no such database"),
        (
            (asyncpg.exceptions.ProtocolViolationError,), DatabaseFault,
            "a pooler in between refuses our session, connect to the server itself",
        ),
    ]  # fmt: skip
    if is_transient(error):
        kinds.append(((Exception,), DatabaseFault, "the database cannot be reached"))
    for types, fault, sentence in kinds:
        if isinstance(error, types):
            detail = without_secrets(str(error).strip(), dsn) or type(error).__name__
            made = fault(f"{sentence}: {detail}{_where_to_look(error, dsn)}")
            if isinstance(made, DatabaseFault):
                made.sqlstate = getattr(error, "sqlstate", None)
            return made
    return error


def _where_to_look(error: Exception, dsn: str | None) -> str:
    """What the system's message omits: which host has no address, or that no setting names a database."""
    if isinstance(error, OSError) and dsn is None and not any(name in os.environ for name in NAMING):
        return "; nothing names a database: give --dsn, set NOETL_BROKER_DSN, or run noetl-broker dev"
    return f" ({database_names([Database(dsn=dsn)])[0]})" if isinstance(error, socket.gaierror) else ""


def _lacks_user(error: Exception) -> bool:
    """Whether the driver found no user name, as in a container; an OSError since Python 3.13, a KeyError before."""
    return isinstance(error, KeyError) or (
        isinstance(error, OSError) and error.errno is None and "username" in str(error)
    )


@contextlib.asynccontextmanager
async def borrowed(pool: Pool, seconds: float) -> AsyncIterator[Connection]:
    """A connection of the pool for at most `seconds`, waiting included; then it is cut.

    Without this the driver waits for ever: after a timeout it sends a cancel request over the same dead network.
    """
    ends_at = asyncio.get_running_loop().time() + seconds
    async with reconnecting(pool):
        connection = await pool.acquire(timeout=min(CONNECT_SECONDS, seconds))
        try:
            async with asyncio.timeout_at(ends_at):
                yield connection
        except TimeoutError:
            connection.terminate()
            await pool.expire_connections()  # the others are probably dead too
            raise
        except asyncio.CancelledError:
            connection.terminate()  # a cancelled task must not wait for a server
            raise
        finally:
            with contextlib.suppress(TimeoutError):  # then the driver has cut it
                await pool.release(connection, timeout=CLOSE_SECONDS)


@contextlib.asynccontextmanager
async def reconnecting(pool: Pool) -> AsyncIterator[None]:
    """Expire the pool's connections if the block fails with a fault that new connections cure."""
    try:
        yield
    except Exception as error:
        if fault_class_of(error).remedy is Remedy.RECONNECT:
            await pool.expire_connections()
        raise


async def expire_if_moved(pool: Pool) -> None:
    """Expire the connections of the pool if its bucket was moved: what is left at the old node may still be read."""
    async with borrowed(pool, CALL_SECONDS) as connection:
        moved = await is_elsewhere(connection)
    if moved:
        await pool.expire_connections()


async def fetch_planned(connection: Connection, text: str, *arguments: Any) -> list[asyncpg.Record]:
    """Rows of a statement that is planned for these arguments.

    Of a statement that `fetch` repeats, the server may keep one plan for all arguments. With many filters it is slow.
    """
    statement = await connection.prepare(text)
    return list(await statement.fetch(*arguments))


async def call(connection: Connection, function: str, *arguments: Any) -> Any:
    """What a function of the broker's schema answers: `call(connection, "pause_execution", 5, "disk full")`.

    A text for `jsonb` would become a JSON string: such a function has a statement, which casts it.
    """
    places = ", ".join(f"${number}" for number, _ in enumerate(arguments, 1))
    return await connection.fetchval(f"select noetl.{function}({places})", *arguments)


async def close_quickly(connection: asyncpg.Connection[Any]) -> None:
    """Close a connection within CLOSE_SECONDS, or cut it."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):  # the driver's timeout does not include its cancel request
            await connection.close(timeout=CLOSE_SECONDS)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


def _wanted(dsn: str | None, takes: Takes) -> SessionAttribute | None:
    """What the driver demands of the server; None: what the DSN or the environment says."""
    is_set = "target_session_attrs" in (dsn or "") or "PGTARGETSESSIONATTRS" in os.environ
    return None if is_set or takes == "reads" else SessionAttribute.read_write


@contextlib.asynccontextmanager
async def transaction(connection: Connection, *, begins_within: float | None = CALL_SECONDS) -> AsyncIterator[None]:
    """A transaction; raises TimeoutError if it does not begin in time, so a dead connection is found early.

    The rollback is limited as well: the driver's own would wait for ever on a dead connection.
    """
    own = connection.transaction()
    async with asyncio.timeout(begins_within):
        await own.start()
    try:
        yield
    except asyncpg.ConnectionDoesNotExistError as error:
        raise error.__cause__ or error from None  # the server's reason for ending the session
    except BaseException:
        await _undo(connection, own)
        raise
    await own.commit()


async def _undo(connection: Connection, own: asyncpg.transaction.Transaction) -> None:
    """Roll back. A failure here is ignored, so that the first error is raised; a cut connection rolls back as well."""
    if connection.is_closed():
        return
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await own.rollback()
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


async def _keep(_connection: Connection) -> None:
    """Do nothing when a connection returns to the pool: nobody changed its session."""


async def _set_up(connection: Connection, *, database: Database) -> None:
    """Prepare a new connection of the pool; raises DatabaseFault if a pooler mixes up prepared statements."""
    await _set_codecs(connection)
    await _refuse_mixing(connection, database)


async def _refuse_mixing(connection: Connection, database: Database) -> None:
    await refuse_mixing(connection, partial(connect, database, name="noetl-broker probe"))


async def _set_codecs(connection: Connection) -> None:
    for name, load in (("json", load_json), ("jsonb", load_jsonb)):
        await connection.set_type_codec(name, encoder=dump_json, decoder=load, schema="pg_catalog", format="text")
