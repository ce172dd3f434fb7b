"""Logins that are members of our roles, on a database whose rights `migrate --roles` has granted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from noetl_broker.store.migrate import create_roles
from tests.brokers import execute
from tests.postgres import Database

ROLES = ("noetl_broker", "noetl_worker", "noetl_producer", "noetl_reader")
PASSWORD = "in"  # noqa: S105 - of a database that lives for one test


class Logins(NamedTuple):
    """The same database, seen by a login of each role and by one of none."""

    broker: Database
    worker: Database
    producer: Database
    reader: Database
    stranger: Database


@asynccontextmanager
async def logins(database: Database) -> AsyncIterator[Logins]:
    """Make the roles and a login in each; the logins are dropped afterwards, the roles are the whole server's."""
    await create_roles(database.dsn)
    async with AsyncExitStack() as stack:
        yield Logins(*[
            await stack.enter_async_context(login(database, f"{role or 'stranger'}_of", role))
            for role in (*ROLES, None)
        ])  # fmt: skip


@asynccontextmanager
async def login(database: Database, prefix: str, role: str | None = None) -> AsyncIterator[Database]:
    """Make one login, in a role or in none; what it owns or was granted here goes with it."""
    name = f"{prefix}_{database.name}"
    await execute(database, f"create role {name} login password '{PASSWORD}'" + (f" in role {role}" if role else ""))
    try:
        yield Database(name=database.name, dsn=f"postgresql://{name}:{PASSWORD}@{database.dsn.partition('@')[2]}")
    finally:
        await execute(database, f"drop owned by {name}")
        await execute(database, f"drop role {name}")
