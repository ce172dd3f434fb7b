"""Logins in our roles, on a database whose rights `migrate --roles` has granted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from noetl_broker.store.connect.migrations import create_roles
from tests.brokers import execute
from tests.postgres import Database, named

ROLES = tuple(
    map(
        named,
        (
            "noetl_broker",
            "noetl_operator",
            "noetl_worker",
            "noetl_producer",
            "noetl_reader",
            "noetl_approver",
            "noetl_author",
        ),
    )
)
PASSWORD = "in"  # noqa: S105 - of a database that lives for one test


class Logins(NamedTuple):
    """One database, with a login in each role and a login without a role."""

    broker: Database
    operator: Database
    worker: Database
    producer: Database
    reader: Database
    approver: Database
    author: Database
    no_role: Database


@asynccontextmanager
async def logins(database: Database) -> AsyncIterator[Logins]:
    """Create the roles and the logins; drop the logins afterwards. Roles belong to the whole server."""
    await create_roles(database)
    async with AsyncExitStack() as stack:
        yield Logins(*[
            await stack.enter_async_context(login(database, f"{role or 'no_role'}_of", role))
            for role in (*ROLES, None)
        ])  # fmt: skip


@asynccontextmanager
async def login(database: Database, prefix: str, role: str | None = None) -> AsyncIterator[Database]:
    """Create a login in a role or without one; drop it afterwards, with what it owns and its rights."""
    name = f"{prefix}_{database.name}"
    await execute(
        database, f"create role \"{name}\" login password '{PASSWORD}'" + (f' in role "{role}"' if role else "")
    )
    try:
        yield Database(name=database.name, dsn=f"postgresql://{name}:{PASSWORD}@{database.dsn.partition('@')[2]}")
    finally:
        await execute(database, f'drop owned by "{name}"')
        await execute(database, f'drop role "{name}"')
