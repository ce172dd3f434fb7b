"""On a read-only server the error says why it takes no writes, and what to do."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from noetl_broker.daemon.service import Service
from noetl_broker.errors import DatabaseFault
from noetl_broker.store.admin.doctor import examine
from noetl_broker.store.connect.connection import connect, create_pool
from tests.brokers import PATIENCE_SECONDS, broken_invariants, drain, execute, options, rows, start, value
from tests.chaos.under_load import finish_all, prepare
from tests.postgres import Database
from tests.roles import login


async def test_the_error_names_a_read_only_role(database: Database) -> None:
    """It has the statement that resets the role."""
    async with login(database, "reader_of") as reader:
        role = (await rows(reader, "select current_user"))[0][0]
        await execute(database, f"alter role {role} set default_transaction_read_only = on")
        with pytest.raises(DatabaseFault) as raised:
            await connect(reader, name="test", takes="writes")
        remedies = {one.check: one.do for one in await examine(reader)}
    remedy = f"alter role {role} reset default_transaction_read_only"
    assert f"the role {role} is set to read only: call {remedy}" in str(raised.value)
    assert raised.value.sqlstate == "25006"
    assert remedy in str(remedies["connection"])


async def test_the_error_names_a_read_only_database_or_setting(database: Database) -> None:
    """Of the DSN or PGOPTIONS. A pool and a connection raise the same error; `fail_fast` does not wait."""
    read_only = replace(database, dsn=f"{database.dsn}?default_transaction_read_only=on")
    with pytest.raises(DatabaseFault, match="the DSN or PGOPTIONS sets default_transaction_read_only: take that out"):
        await connect(read_only, name="test", takes="writes")
    await execute(database, f"alter database {database.name} set default_transaction_read_only = on")
    with pytest.raises(
        DatabaseFault, match=f"call alter database {database.name} reset default_transaction_read_only"
    ) as raised:
        await create_pool(database, name="test", size=1)
    assert "the server takes no writes" in str(raised.value)
    with pytest.raises(DatabaseFault, match="is set to read only"):
        await drain(database, fail_fast=True)


async def test_a_broker_waits_while_its_database_is_read_only(database: Database) -> None:
    """It reports the reason, makes no dead letters, and continues when it may write."""
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
