"""A session that connects again: what it tries once, and what it raises."""

from __future__ import annotations

import pytest

from noetl_broker.errors import DatabaseFault, OperatorFault, SchemaFault
from noetl_broker.store.connect.dsn import Database as AnyDatabase
from noetl_broker.store.connect.lasting_session import LastingSession
from noetl_broker.store.connect.session import session
from tests.postgres import Database


async def test_a_wrong_address_is_tried_once() -> None:
    """Else a command with a typo would wait for ever."""
    told: list[str] = []
    nowhere = AnyDatabase(dsn="postgresql://nobody@127.0.0.1:1/nothing")
    async with LastingSession(nowhere, name="story", say=told.append) as source:
        with pytest.raises(DatabaseFault):
            await source.read(lambda connection: connection.fetchval("select 1"))
    assert told == []


async def test_a_fault_that_a_new_connection_does_not_cure_is_raised(database: Database) -> None:
    """A missing table, for example."""
    told: list[str] = []
    async with LastingSession(database, name="story", say=told.append) as source:
        assert await source.read(lambda connection: connection.fetchval("select 1")) == 1
        with pytest.raises(SchemaFault):
            await source.read(lambda connection: connection.fetchval("select 1 from noetl.nothing"))
        with pytest.raises(OperatorFault, match="division by zero"):
            await source.read(lambda connection: connection.fetchval("select 1 / 0"))
    assert told == []


async def test_a_statement_timeout_is_a_database_fault(database: Database) -> None:
    """The connection is open, and the command itself has no fault."""
    with pytest.raises(DatabaseFault, match="TimeoutError"):
        async with session(database, name="story") as connection:
            await connection.fetchval("select pg_sleep(30)", timeout=0.01)
