"""Connections: how each is set up, and what each fault of the database means to us.

Every connection has limits of its own, so that a stopped broker loses its locks within seconds and its late commit is
refused. Plans are made once, and always by index: our statements join a handful of ids to large tables, and a plan made
while a table was still empty must not scan it when it is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Literal

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from noetl_broker.errors import BrokerError, DatabaseFault, OperatorFault, PermissionFault
from noetl_broker.store.codec import dump_json, load_json, load_jsonb
from noetl_broker.store.dsn import database_names, without_secrets
from noetl_broker.store.faults import Remedy, is_mixed_up, is_transient, kind_of
from noetl_broker.store.poolers import pooler_fault, refuse_mixing
from noetl_broker.store.queries import sql
from noetl_broker.store.read_only import Why, read_only_fault, why_read_only

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
Pool = asyncpg.Pool
Check = Callable[[Connection], Awaitable[None]]
Takes = Literal["reads", "writes"]  # what a server must take, where a DSN names several or the roles change
NAMING = ("PGHOST", "PGPORT", "PGDATABASE", "PGSERVICE")  # variables that say where a database is
CONNECT_SECONDS = 10.0
LISTEN_SECONDS = CONNECT_SECONDS + 5.0  # LISTEN goes through all of the queue that others have not read
CALL_SECONDS = 5.0  # for what takes no time: a connection that does not answer by then is dead
COMMAND_SECONDS = 60.0  # for a statement of a command, whatever the server lets it
ANSWER_SECONDS = 35.0  # a little more than the server lets a statement run: no answer by then means a dead connection
CLOSE_SECONDS = 2.0
TRANSACTION_TIMEOUT_SINCE = 17

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
    dsn: str | None, *, name: str, command_timeout: float | None = COMMAND_SECONDS, takes: Takes = "reads"
) -> asyncpg.Connection[Any]:
    """One connection outside the pool; raises the fault that fits. `dsn` None: the PG* variables.

    `command_timeout` seconds for each statement (None: as long as the server lets it). `takes` "writes": of a server
    that takes them, unless the DSN says which it wants.
    """
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_SECONDS,
            server_settings={"application_name": name, **SESSION},
            command_timeout=command_timeout,
            target_session_attrs=_wanted(dsn, takes),
        )
        try:
            await _set_codecs(connection)
        except BaseException:
            connection.terminate()
            raise
    except asyncpg.exceptions.TargetServerAttributeNotMatched:
        raise read_only_fault(await _why_read_only(dsn, name)) from None
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told as a fault of its owner
        raise connection_fault(error, dsn) from None
    return connection


async def _why_read_only(dsn: str | None, name: str) -> Why | None:
    """Ask a server that takes no writes why; None where it does not say."""
    try:
        connection = await connect(dsn, name=name)
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
    dsn: str | None, *, name: str, size: int, hot: bool = False, check: Check | None = None
) -> asyncpg.Pool[Any]:
    """A pool of `size` connections to a server that takes writes; `hot` for those that take turns.

    It connects when it is asked to. One connection is made before it, and `check` may look at the database over that.
    Raises the fault that fits.
    """
    settings = {"application_name": name, **SESSION, **(HOT_PATH if hot else {})}
    first = await connect(dsn, name=name, takes="writes")
    try:
        if first.get_server_version().major >= TRANSACTION_TIMEOUT_SINCE:
            settings["transaction_timeout"] = "20s"
        await _refuse_mixing(first, dsn)
        if check is not None:
            await check(first)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told as a fault of its owner
        raise connection_fault(error, dsn) from None
    finally:
        await hang_up(first)
    try:
        return await asyncpg.create_pool(
            dsn, min_size=0, max_size=size, init=partial(_set_up, dsn=dsn), server_settings=settings,
            command_timeout=ANSWER_SECONDS, timeout=CONNECT_SECONDS, max_inactive_connection_lifetime=0, reset=_keep,
            target_session_attrs=_wanted(dsn, "writes"),
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told as a fault of its owner
        raise connection_fault(error, dsn) from None


def connection_fault(error: Exception, dsn: str | None) -> Exception:
    """What to tell an operator of a connection that could not be made, or not be used; anything unknown stays as it is.

    The driver's own words are not chained to it: of a broken DSN they may show a piece of the password.
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
        ((asyncpg.InsufficientPrivilegeError,), PermissionFault, "the database refuses for want of rights"),
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
    """What the system's words leave out: which host has no address, or that nobody has said where the database is."""
    if isinstance(error, OSError) and dsn is None and not any(name in os.environ for name in NAMING):
        return "; nothing names a database: give --dsn, or set NOETL_BROKER_DSN or the PG* variables"
    return f" ({database_names([dsn])[0]})" if isinstance(error, socket.gaierror) else ""


def _lacks_user(error: Exception) -> bool:
    """Whether the driver asked the system for a name and got none, as in a container; since 3.13 that is an OSError."""
    return isinstance(error, KeyError) or (
        isinstance(error, OSError) and error.errno is None and "username" in str(error)
    )


@contextlib.asynccontextmanager
async def lent(pool: Pool, seconds: float) -> AsyncIterator[Connection]:
    """Lend a connection of the pool for so long, the wait for it counted; one that does not answer by then is cut.

    The driver by itself would wait for ever: after a timeout it asks the server to cancel, on a way that is as dead.
    """
    ends_at = asyncio.get_running_loop().time() + seconds
    async with renewed(pool):
        connection = await pool.acquire(timeout=min(CONNECT_SECONDS, seconds))
        try:
            async with asyncio.timeout_at(ends_at):
                yield connection
        except TimeoutError:
            connection.terminate()
            await pool.expire_connections()  # the others may be as dead
            raise
        except asyncio.CancelledError:
            connection.terminate()  # whoever ends us has no time for a server that may not answer
            raise
        finally:
            await pool.release(connection)


@contextlib.asynccontextmanager
async def renewed(pool: Pool) -> AsyncIterator[None]:
    """Let what is done next over the pool connect anew, where a fault says that the connections are spoiled."""
    try:
        yield
    except Exception as error:
        if kind_of(error).remedy is Remedy.RECONNECT:
            await pool.expire_connections()
        raise


async def hang_up(connection: asyncpg.Connection[Any]) -> None:
    """Close a connection; one that does not answer is cut."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):  # a driver's own limit may not count what it has to cancel before
            await connection.close(timeout=CLOSE_SECONDS)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


def _wanted(dsn: str | None, takes: Takes) -> SessionAttribute | None:
    """What the driver is to ask of a server; None: what the DSN or the environment says."""
    said = "target_session_attrs" in (dsn or "") or "PGTARGETSESSIONATTRS" in os.environ
    return None if said or takes == "reads" else SessionAttribute.read_write


@contextlib.asynccontextmanager
async def transaction(connection: Connection, *, begins_within: float | None = CALL_SECONDS) -> AsyncIterator[None]:
    """A transaction that begins at once, or TimeoutError: so a dead connection is found where it costs nothing.

    One that is given up on a connection that does not answer ends with that: the driver's own would wait for ever.
    """
    own = connection.transaction()
    async with asyncio.timeout(begins_within):
        await own.start()
    try:
        yield
    except asyncpg.ConnectionDoesNotExistError as error:
        raise error.__cause__ or error from None  # what the server said when it ended the session
    except BaseException:
        await _undo(connection, own)
        raise
    await own.commit()


async def _undo(connection: Connection, own: asyncpg.transaction.Transaction) -> None:
    """Roll back; whatever hinders it, the reason to do so is what counts. The server undoes what is cut by itself."""
    if connection.is_closed():
        return
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await own.rollback()
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


async def _keep(_connection: Connection) -> None:
    """Our connections never change their session, so giving one back needs no round trip."""


async def _set_up(connection: Connection, *, dsn: str | None) -> None:
    """Make a connection of a pool one of ours; raises DatabaseFault where a pooler mixes up prepared statements."""
    await _set_codecs(connection)
    await _refuse_mixing(connection, dsn)


async def _refuse_mixing(connection: Connection, dsn: str | None) -> None:
    await refuse_mixing(connection, partial(connect, dsn, name="noetl-broker probe"))


async def _set_codecs(connection: Connection) -> None:
    for name, load in (("json", load_json), ("jsonb", load_jsonb)):
        await connection.set_type_codec(name, encoder=dump_json, decoder=load, schema="pg_catalog", format="text")
