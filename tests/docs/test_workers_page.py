"""docs/how-to/workers.md and docs/reference/worker-protocol.md: their statements run in order, beside a broker."""

from __future__ import annotations

import re
from typing import Any

from noetl_broker import embedded_postgres
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.connect.migrations import migrate
from tests.brokers import (
    broken_invariants,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    until_ended,
)
from tests.chaos.under_load import until
from tests.docs.pages import code_blocks, read_page
from tests.postgres import Database
from tests.sessions import refused

STATEMENTS = [*code_blocks(read_page("workers"), "sql"), *code_blocks(read_page("worker-protocol"), "sql")]


async def test_an_execution_runs_with_sql_alone(database: Database) -> None:
    """Register, start, lease, complete; then start from a trigger, cancel by an event, and get a traceparent."""
    answers: list[list[tuple[Any, ...]]] = []
    connection = await connect(database, name="psql")
    try:
        for statement in STATEMENTS:
            if statement.startswith("select"):
                answers.append([tuple(row) for row in await connection.fetch(statement)])
            else:
                await connection.execute(statement)
            await drain(database)
    finally:
        await connection.close()
    started, leased, renewed, logged, completed, ended, announced, pooled, *others = answers
    served, many, reported, still_held, traced = others
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", traced[0][0])
    assert isinstance(started[0][0], int)
    assert len(many[0][0]) == 2
    assert list(leased[0][1:]) == [1, "greet", "python", {"name": "Ada"}]
    assert (renewed, logged, completed) == ([(True,)], [(True,)], [(True, None, None, None, None)])
    assert (reported, still_held) == ([(True,)], [(True, "greet")])
    assert (announced, len(pooled), len(served)) == ([(2,)], 1, 1)
    assert ended == [("COMPLETED", {"said": "Hello, Ada!"})]
    orders = await rows(
        database,
        "select status, workload ->> 'name', error ->> 'message'"
        " from noetl.execution where idempotency_key like 'order%' order by execution_id",
    )
    assert orders == [("RUNNING", "Grace", None), ("CANCELLED", "Edsger", "the order was withdrawn")]
    assert await broken_invariants(database, ignore=("every execution ended",)) == {}


async def test_a_start_can_be_prepared_with_notify_off() -> None:
    """Beside a sleeping broker with `notify = gated`, Postgres refuses."""
    prepared = "begin; select noetl.start_execution('story'); prepare transaction 'two'"
    gate = "classid = hashtext('noetl.lock')::oid and objid = 1"
    asleep = f"select count(*) > 0 from pg_locks where mode = 'ExclusiveLock' and {gate}"
    with embedded_postgres.start(settings={"max_prepared_transactions": "2", "fsync": "off"}) as postgres:
        database = Database(name="postgres", dsn=postgres.dsn())
        await migrate(database)
        await register(database, "workflow:\n- {step: start}\n")
        async with running(database, notify="gated", sweep_seconds=3600.0):  # a sweep would wake it
            await until(database, asleep)
            async with refused("0A000", r"cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY"):
                await execute(database, prepared)
        async with running(database, notify="off"):
            await start(database)
            await until_ended(database)
            await execute(database, prepared)
            await execute(database, "commit prepared 'two'")
            await until_ended(database)
        assert await broken_invariants(database) == {}
