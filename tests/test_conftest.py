"""The databases of tests."""

from __future__ import annotations

import asyncpg

from tests.postgres import Database, asyncpg_connect


async def test_an_empty_database_has_no_schema_of_ours(empty_database: Database) -> None:
    """Tests of `migrate` start without a schema."""
    connection = await asyncpg.connect(empty_database.dsn)
    try:
        assert await connection.fetchval("select to_regnamespace('noetl')") is None
    finally:
        await connection.close()


async def test_a_database_is_migrated(database: Database) -> None:
    """The template was migrated once, and its copy has the tables."""
    connection = await asyncpg_connect(database)
    try:
        assert await connection.fetchval("select to_regclass('noetl.event') is not null")
    finally:
        await connection.close()


async def test_two_databases_of_one_test_are_separate(database: Database, empty_database: Database) -> None:
    """Each fixture creates a database."""
    assert database.name != empty_database.name


async def test_a_test_may_leave_its_connections_open(empty_database: Database) -> None:
    """The database is dropped, and the next test is not affected."""
    connection = await asyncpg.connect(empty_database.dsn)
    assert await connection.fetchval("select 1") == 1
    connection.terminate()
