"""Finds out why a server cannot serve us: a pooler mixes up our prepared statements, or sessions are read only.

Some poolers run each transaction in whichever session is free and pass the names of prepared statements on unchanged.
Such a name may then mean another program's statement, so nothing of ours may run there. A pooler that renames
statements (PgBouncer with `max_prepared_statements`), or gives each connection its own session, is fine.

A setting that makes sessions read only is deliberate: a provider sets it when a disk is full. It is not overridden.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import asyncpg

from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.store.connect.sqlstates import is_mixed_up
from noetl_broker.store.queries import sql

MIXES_UP = "a pooler in between runs our prepared statements in other sessions"
REMEDY = (
    "connect to the server itself, or let the pooler keep prepared statements"
    " (PgBouncer: max_prepared_statements = 200)"
)
PROBE_SECONDS = 5.0
NO_SUCH_STATEMENT = "26000"  # the server's SQLSTATE for an unknown prepared statement
READ_ONLY = "25006"  # the server's SQLSTATE for a write in a read-only transaction
READ_ONLY_SETTING = "default_transaction_read_only"

Session = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


def pooler_fault() -> DatabaseFault:
    """The fault of a pooler that mixes up statements. It is retried: somebody may reconfigure the pooler."""
    return _fault(f"{MIXES_UP}: {REMEDY}", NO_SUCH_STATEMENT)


async def refuse_mixing(session: Session, connect: Callable[[], Awaitable[asyncpg.Connection[Any]]]) -> None:
    """Raise DatabaseFault if statements are proved to be mixed up; `connect` makes another connection.

    One round trip where no pooler is: the process that greeted us is the one that answers.
    """
    try:
        mixes = (
            await _is_greeted_by_another(session)
            and await _passes_names_on(session)
            and await _shares(session, connect)
        )
    except asyncpg.PostgresError as error:
        if not is_mixed_up(error):
            raise
        mixes = True
    if mixes:
        raise pooler_fault()


async def _is_greeted_by_another(session: Session) -> bool:
    return session.get_server_pid() != await _process_of(session)


async def _passes_names_on(session: Session) -> bool:
    """Whether the server knows our statement by the name that we gave it."""
    async with session.transaction():
        prepared = await session.prepare(sql("process_of_session"))
        return bool(await session.fetchval(sql("is_prepared"), prepared.get_name()))


async def _shares(session: Session, connect: Callable[[], Awaitable[asyncpg.Connection[Any]]]) -> bool:
    """Whether two connections of ours get the same session, or one of them gets two, while both are open."""
    ours = {await _process_of(session)}
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            other = await connect()
            try:
                ours.add(await _process_of(session))
                async with other.transaction():
                    if await _process_of(other) in ours:
                        return True
                    ours.add(await _process_of(session))
                return len(ours) > 1
            finally:
                other.terminate()
    except (TimeoutError, OSError, asyncpg.InterfaceError):
        return False  # with one session there is nothing to mix up
    except BrokerError as fault:
        return is_mixed_up(fault)


async def _process_of(session: Session) -> int:
    return int(await session.fetchval(sql("process_of_session")))


class ReadOnly(NamedTuple):
    """Why sessions are read only, and what to do about it."""

    reason: str
    remedy: str


def why_read_only(row: Mapping[str, Any]) -> ReadOnly | None:
    """The reason, from a row of `examine_read_only`; None if sessions may write."""
    if row["is_replica"]:
        return ReadOnly(
            "the server is a replica",
            "name the primary in the DSN, or several hosts and target_session_attrs=read-write",
        )
    if not row["is_read_only"]:
        return None
    role, database, setting = row["role"], row["database"], READ_ONLY_SETTING
    reasons = {
        "user": ReadOnly(f"the role {role} is set to read only", f"call alter role {role} reset {setting}"),
        "database": ReadOnly(
            f"the database {database} is set to read only", f"call alter database {database} reset {setting}"
        ),
        "database user": ReadOnly(
            f"the role {role} is set to read only in the database {database}",
            f"call alter role {role} in database {database} reset {setting}",
        ),
        "client": ReadOnly(f"the DSN or PGOPTIONS sets {setting}", "take that out"),
    }
    whole_server = ReadOnly(
        "the server is set to read only, perhaps by a provider whose disk is full",
        f"call alter system reset {setting}, then select pg_reload_conf()",
    )
    return reasons.get(row["source"], whole_server)


def read_only_fault(why: ReadOnly | None) -> DatabaseFault:
    """The fault of a read-only server; `why` None: it accepts writes again, or did not answer."""
    reason = f": {why.reason}: {why.remedy}" if why is not None else "; try again"
    return _fault(f"the server takes no writes{reason}", READ_ONLY)


def _fault(message: str, sqlstate: str) -> DatabaseFault:
    fault = DatabaseFault(message)
    fault.sqlstate = sqlstate
    return fault
