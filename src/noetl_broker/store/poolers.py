"""Finds out whether a pooler between us and the server mixes up prepared statements.

Some poolers run each transaction on whichever session is free and pass the names of prepared statements on as they are.
There a statement may be another program's of the same name. So nothing of ours may run behind such a one. What renames
the statements (PgBouncer with `max_prepared_statements`), or gives each connection a session of its own, serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.store.faults import is_mixed_up
from noetl_broker.store.queries import sql

MIXES_UP = "a pooler in between runs our prepared statements in other sessions"
REMEDY = (
    "connect to the server itself, or let the pooler keep prepared statements"
    " (PgBouncer: max_prepared_statements = 200)"
)
PROBE_SECONDS = 5.0
SQLSTATE = "26000"  # what the server would say sooner or later: a prepared statement does not exist

Session = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


def pooler_fault() -> DatabaseFault:
    """What to tell of such a pooler: it is waited for like a server that is away, and may be mended meanwhile."""
    fault = DatabaseFault(f"{MIXES_UP}: {REMEDY}")
    fault.sqlstate = SQLSTATE
    return fault


async def refuse_mixing(session: Session, connect: Callable[[], Awaitable[asyncpg.Connection[Any]]]) -> None:
    """Raise DatabaseFault where it is proved that statements are mixed up; `connect` makes another connection.

    One round trip where no pooler is: the server greeted us as the process that answers.
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
    """Whether the server knows our statement under our own name for it."""
    async with session.transaction():
        prepared = await session.prepare(sql("process_of_session"))
        return bool(await session.fetchval(sql("is_prepared"), prepared.get_name()))


async def _shares(session: Session, connect: Callable[[], Awaitable[asyncpg.Connection[Any]]]) -> bool:
    """Whether another connection comes upon a session of ours, or we upon a second one, while both stand."""
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
        return False  # it has no second session to give: there is nothing to mix
    except BrokerError as fault:
        return is_mixed_up(fault)


async def _process_of(session: Session) -> int:
    return int(await session.fetchval(sql("process_of_session")))
