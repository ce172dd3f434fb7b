"""The page about workers keeps its word: its statements run, in its order, with a broker beside them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from noetl_broker.store import embedded
from noetl_broker.store.migrate import migrate
from noetl_broker.store.pool import connect
from tests.brokers import (
    PATIENCE_SECONDS,
    broken_invariants,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    until_ended,
    value,
)
from tests.postgres import Database
from tests.sessions import refused

PAGE = Path(__file__).parents[2] / "docs" / "workers.md"


async def test_an_execution_is_driven_by_nothing_but_sql(database: Database) -> None:
    """From the catalog to the result, then a user's own trigger, then an event inserted by hand."""
    statements = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    answers: list[list[tuple[Any, ...]]] = []
    connection = await connect(database.dsn, name="psql")
    try:
        for statement in statements:
            if statement.startswith("select"):
                answers.append([tuple(row) for row in await connection.fetch(statement)])
            else:
                await connection.execute(statement)
            await drain(database)
    finally:
        await connection.close()
    started, leased, alive, completed, ended, traced = answers
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", traced[0][0])
    assert isinstance(started[0][0], int)
    assert list(leased[0][1:]) == [1, "greet", "python", {"name": "Ada"}]
    assert alive == completed == [(True,)]
    assert ended == [("COMPLETED", {"said": "Hello, Ada!"})]
    orders = await rows(
        database,
        "select status, workload ->> 'name', error ->> 'message'"
        " from noetl.execution where idempotency_key like 'order%' order by execution_id",
    )
    assert orders == [("RUNNING", "Grace", None), ("CANCELLED", "Edsger", "the order was withdrawn")]
    assert await broken_invariants(database, but=("every execution ended",)) == {}


async def test_a_transaction_that_starts_an_execution_is_prepared_where_no_broker_wants_the_bell() -> None:
    """With `notify = off`; beside a broker that sleeps at its bell Postgres refuses, as the page says."""
    prepared = "begin; select noetl.start_execution('story'); prepare transaction 'two'"
    asleep = "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' and objsubid = 2"
    with embedded.start(settings={"max_prepared_transactions": "2", "fsync": "off"}) as postgres:
        database = Database(name="postgres", dsn=postgres.dsn())
        await migrate(database.dsn)
        await register(database, "workflow:\n- {step: start}\n")
        async with running(database, notify="gated"):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await value(database, asleep):
                    continue
            async with refused("0A000", r"cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY"):
                await execute(database, prepared)
        async with running(database, notify="off"):
            await start(database)
            await until_ended(database)
            await execute(database, prepared)
            await execute(database, "commit prepared 'two'")
            await until_ended(database)
        assert await broken_invariants(database) == {}
