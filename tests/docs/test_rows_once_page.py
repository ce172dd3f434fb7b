"""docs/how-to/rows-once.md: its statements and its function for asyncpg run beside a broker."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from noetl_broker.store.connect.connection import connect
from tests.brokers import drain, register, start, value
from tests.docs.pages import code_blocks, read_page
from tests.postgres import Database

PAGE = read_page("rows-once")
PLAYBOOK = "workflow: [{step: start, next: a}, {step: a, type: python, code: 'def main(): ...'}]"
LEASE = "select queue_id, attempts from noetl.lease_jobs('my-worker', max_jobs => 1)"


async def test_rows_are_written_with_the_completion_alone(database: Database) -> None:
    """The second attempt to complete a job writes nothing; the question of the page says what came of the first."""
    await register(database, PLAYBOOK)
    await start(database, count=2)
    await drain(database)
    written, asked, _ = code_blocks(PAGE, "sql")
    space: dict[str, Any] = {}
    exec(next(block for block in code_blocks(PAGE, "python") if "charge_asyncpg" in block), space)  # noqa: S102 - of the page
    connection = await connect(database, name="rows once")
    try:
        await connection.execute("create schema shop; create table shop.charge (order_id int, amount int)")
        job = await connection.fetchrow(LEASE)
        assert job is not None
        named = {":queue_id": str(job["queue_id"]), ":attempt": str(job["attempts"])}
        for name, text in named.items():
            written, asked = written.replace(name, text), asked.replace(name, text)
        assert await connection.fetchval(asked) == "leased"
        await connection.execute(written)
        assert await connection.fetchval(asked) == "completed"
        other = await connection.fetchrow(LEASE)
        await space["charge"](connection, other, "my-worker")
        with pytest.raises(asyncpg.PostgresError, match="lease"):
            await space["charge"](connection, other, "my-worker")
    finally:
        await connection.close()
    assert await value(database, "select count(*) from shop.charge") == 2
    await drain(database)
    assert await value(database, "select count(*) from noetl.execution where status = 'COMPLETED'") == 2
