"""Connections: how each is set up, and what each fault of the database means to us.

Every connection has limits of its own, so that a stopped broker loses its locks within seconds and its late commit is
refused. Plans are made once, and always by index: our statements join a handful of ids to large tables, and a plan made
while a table was still empty must not scan it when it is full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from noetl_broker.errors import DatabaseFault, OperatorFault, PermissionFault
from noetl_broker.store.codec import dump_json, load_json
from noetl_broker.store.dsn import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
Pool = asyncpg.Pool
CONNECT_SECONDS = 10.0
TRANSACTION_TIMEOUT_SINCE = 170000

SESSION = {
    "statement_timeout": "30s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "4",
    "timezone": "UTC",
}
HOT_PATH = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


async def connect(dsn: str | None, *, name: str, command_timeout: float | None = 60.0) -> asyncpg.Connection[Any]:
    """One connection outside the pool; raises the fault that fits. `dsn` None: the PG* variables.

    `command_timeout` seconds for each statement (None: as long as the server lets it).
    """
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_SECONDS,
            server_settings={"application_name": name, **SESSION},
            command_timeout=command_timeout,
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told as a fault of its owner
        raise connection_fault(error, dsn) from None
    await _set_codecs(connection)
    return connection


async def create_pool(dsn: str | None, *, name: str, size: int, hot: bool = False) -> asyncpg.Pool[Any]:
    """A pool of `size` connections; `hot` for those that take turns. Raises the fault that fits."""
    settings = {"application_name": name, **SESSION, **(HOT_PATH if hot else {})}
    probe = await connect(dsn, name=name)
    try:
        if int(await probe.fetchval("show server_version_num")) >= TRANSACTION_TIMEOUT_SINCE:
            settings["transaction_timeout"] = "20s"
    finally:
        await probe.close()
    try:
        return await asyncpg.create_pool(
            dsn, min_size=1, max_size=size, init=_set_codecs, server_settings=settings, command_timeout=60,
            max_inactive_connection_lifetime=0,
            reset=_keep,
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told as a fault of its owner
        raise connection_fault(error, dsn) from None


def connection_fault(error: Exception, dsn: str | None) -> Exception:
    """What to tell an operator of a connection that could not be made; anything unknown stays as it is.

    The driver's own words are not chained to it: of a broken DSN they may show a piece of the password.
    """
    kinds: list[tuple[tuple[type[Exception], ...], Callable[[str], Exception], str]] = [
        # first, because asyncpg counts it among the faults of a connection too
        ((asyncpg.exceptions.ClientConfigurationError, ValueError), OperatorFault, "the DSN is not valid"),
        ((asyncpg.InvalidAuthorizationSpecificationError,), PermissionFault, "the database refuses the login"),
        ((asyncpg.InsufficientPrivilegeError,), PermissionFault, "the database refuses for want of rights"),
        ((asyncpg.InvalidCatalogNameError,), OperatorFault, "there is no such database"),
        (
            (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError,
             asyncpg.TooManyConnectionsError, asyncpg.InterfaceError),
            DatabaseFault, "the database cannot be reached",
        ),
    ]  # fmt: skip
    for types, fault, sentence in kinds:
        if isinstance(error, types):
            detail = without_secrets(str(error).strip(), dsn) or type(error).__name__
            return fault(f"{sentence}: {detail}")
    return error


# What makes a transaction worth trying again, by SQLSTATE class or code: the connection went, the server is going down
# or coming up, somebody else was first, or something is full for now.
TURN_KEYS = frozenset({"turn_pkey", "execution_state_pkey"})
TRANSIENT_CLASSES = ("08", "40", "53", "57")
TRANSIENT_CODES = frozenset({"55P03", "25P03", "25P04", "25006"})


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed on another try, perhaps on another connection."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] in TRANSIENT_CLASSES or state in TRANSIENT_CODES
    return isinstance(
        error, (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError, DatabaseFault)
    )


def is_conflict(error: BaseException) -> bool:
    """Whether another broker has taken the turn that we were about to write."""
    return isinstance(error, asyncpg.UniqueViolationError) and error.constraint_name in TURN_KEYS


async def _keep(_connection: Connection) -> None:
    """Our connections never change their session, so giving one back needs no round trip."""


async def _set_codecs(connection: Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, encoder=dump_json, decoder=load_json, schema="pg_catalog", format="text"
        )  # fmt: skip
