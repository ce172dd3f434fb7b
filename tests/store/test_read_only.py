"""A server that takes no writes: whoever waits for it says why it takes none, and what to do."""

from __future__ import annotations

import asyncio

import pytest

from noetl_broker.daemon.service import Service
from noetl_broker.errors import DatabaseFault
from noetl_broker.store.examining import examine
from noetl_broker.store.pool import connect, create_pool
from tests.brokers import PATIENCE_SECONDS, broken_invariants, drain, execute, options, rows, start, value
from tests.chaos.under_load import finish_all, prepare
from tests.postgres import Database
from tests.roles import login


async def test_a_role_that_is_set_to_read_only_is_named(database: Database) -> None:
    """With the statement that sets it back."""
    async with login(database, "reader_of") as reader:
        role = (await rows(reader, "select current_user"))[0][0]
        await execute(database, f"alter role {role} set default_transaction_read_only = on")
        with pytest.raises(DatabaseFault) as told:
            await connect(reader.dsn, name="test", takes="writes")
        found = {one.check: one.do for one in await examine(reader.dsn)}
    remedy = f"alter role {role} reset default_transaction_read_only"
    assert f"the role {role} is set to read only: call {remedy}" in str(told.value)
    assert told.value.sqlstate == "25006"
    assert remedy in str(found["connection"])


async def test_a_database_that_is_set_to_read_only_is_named(database: Database) -> None:
    """A pool is refused as a connection is."""
    await execute(database, f"alter database {database.name} set default_transaction_read_only = on")
    with pytest.raises(
        DatabaseFault, match=f"call alter database {database.name} reset default_transaction_read_only"
    ) as told:
        await create_pool(database.dsn, name="test", size=1)
    assert "the server takes no writes" in str(told.value)


async def test_settings_of_the_client_are_named(database: Database) -> None:
    """What the DSN, or PGOPTIONS, sets for its sessions."""
    dsn = f"{database.dsn}?default_transaction_read_only=on"
    with pytest.raises(DatabaseFault, match="the DSN or PGOPTIONS sets default_transaction_read_only: take that out"):
        await connect(dsn, name="test", takes="writes")


async def test_a_broker_waits_for_a_database_that_is_read_only(database: Database) -> None:
    """It says why, sets nothing aside, and goes on by itself when it may write."""
    await prepare(database)
    await start(database, count=3)
    await execute(database, f"alter database {database.name} set default_transaction_read_only = on")
    ready = asyncio.Event()
    service = Service(options(database), on_ready=ready.set)
    task = asyncio.create_task(service.run())
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "reset default_transaction_read_only" not in (service.trouble or ""):
            await value(database, "select 1")
        dsn = f"{database.dsn}?default_transaction_read_only=off"
        own = Database(name=database.name, dsn=dsn)
        await execute(own, f"alter database {database.name} reset default_transaction_read_only")
        await ready.wait()
    await finish_all(database)
    service.stopping.set()
    await asyncio.wait_for(task, PATIENCE_SECONDS)
    assert await broken_invariants(database) == {}


async def test_who_waits_for_nothing_is_told_too(database: Database) -> None:
    """By --fail-fast."""
    await execute(database, f"alter database {database.name} set default_transaction_read_only = on")
    with pytest.raises(DatabaseFault, match="is set to read only"):
        await drain(database, fail_fast=True)
