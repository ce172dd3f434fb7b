"""Connections: how each is set up, and what each fault of the database means to us.

Every connection has limits of its own, so that a stopped broker loses its locks within seconds and its late commit is
refused. Plans are made once, and always by index: our statements join a handful of ids to large tables, and a plan made
while a table was still empty must not scan it when it is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from noetl_broker.errors import DatabaseFault, OperatorFault, PermissionFault
from noetl_broker.store.codec import dump_json, load_json
from noetl_broker.store.dsn import without_secrets

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
Pool = asyncpg.Pool
Takes = Literal["reads", "writes"]  # what a server must take, where a DSN names several or the roles change
CONNECT_SECONDS = 10.0
CALL_SECONDS = 5.0  # for what takes no time: a connection that does not answer by then is dead
ANSWER_SECONDS = 35.0  # a little more than the server lets a statement run: no answer by then means a dead connection
TRANSACTION_TIMEOUT_SINCE = 170000

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
    dsn: str | None, *, name: str, command_timeout: float | None = 60.0, takes: Takes = "reads"
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
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told as a fault of its owner
        raise connection_fault(error, dsn) from None
    await _set_codecs(connection)
    return connection


async def create_pool(dsn: str | None, *, name: str, size: int, hot: bool = False) -> asyncpg.Pool[Any]:
    """A pool of `size` connections to a server that takes writes; `hot` for those that take turns.

    Raises the fault that fits.
    """
    settings = {"application_name": name, **SESSION, **(HOT_PATH if hot else {})}
    probe = await connect(dsn, name=name, takes="writes")
    try:
        if int(await probe.fetchval("show server_version_num")) >= TRANSACTION_TIMEOUT_SINCE:
            settings["transaction_timeout"] = "20s"
    finally:
        await probe.close()
    try:
        return await asyncpg.create_pool(
            dsn, min_size=0, max_size=size, init=_set_codecs, server_settings=settings,
            command_timeout=ANSWER_SECONDS, timeout=CONNECT_SECONDS, max_inactive_connection_lifetime=0, reset=_keep,
            target_session_attrs=_wanted(dsn, "writes"),
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told as a fault of its owner
        raise connection_fault(error, dsn) from None


def connection_fault(error: Exception, dsn: str | None) -> Exception:
    """What to tell an operator of a connection that could not be made; anything unknown stays as it is.

    The driver's own words are not chained to it: of a broken DSN they may show a piece of the password.
    """
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
        (
            (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError,
             asyncpg.TooManyConnectionsError, asyncpg.InterfaceError,
             asyncpg.exceptions.TargetServerAttributeNotMatched),
            DatabaseFault, "the database cannot be reached",
        ),
    ]  # fmt: skip
    for types, fault, sentence in kinds:
        if isinstance(error, types):
            detail = without_secrets(str(error).strip(), dsn) or type(error).__name__
            return fault(f"{sentence}: {detail}")
    return error


def _lacks_user(error: Exception) -> bool:
    """Whether the driver asked the system for a name and got none, as in a container; since 3.13 that is an OSError."""
    return isinstance(error, KeyError) or (
        isinstance(error, OSError) and error.errno is None and "username" in str(error)
    )


@contextlib.asynccontextmanager
async def lent(pool: Pool, seconds: float) -> AsyncIterator[Connection]:
    """Lend a connection of the pool for so long; one on which nothing comes back by then is cut.

    The driver by itself would wait for ever: after a timeout it asks the server to cancel, on a way that is as dead.
    """
    connection = await pool.acquire(timeout=CONNECT_SECONDS)
    try:
        async with asyncio.timeout(seconds):
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


def _wanted(dsn: str | None, takes: Takes) -> SessionAttribute | None:
    """What the driver is to ask of a server; None: what the DSN or the environment says."""
    said = "target_session_attrs" in (dsn or "") or "PGTARGETSESSIONATTRS" in os.environ
    return None if said or takes == "reads" else SessionAttribute.read_write


@contextlib.asynccontextmanager
async def transaction(connection: Connection) -> AsyncIterator[None]:
    """A transaction that begins at once, or TimeoutError: so a dead connection is found where it costs nothing."""
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(CALL_SECONDS):
            await stack.enter_async_context(connection.transaction())
        yield


async def _keep(_connection: Connection) -> None:
    """Our connections never change their session, so giving one back needs no round trip."""


async def _set_codecs(connection: Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, encoder=dump_json, decoder=load_json, schema="pg_catalog", format="text"
        )  # fmt: skip
