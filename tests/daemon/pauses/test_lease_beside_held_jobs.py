"""A lease, and the end of a job, cost the same beside many held jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_broker.store.connect.connection import connect
from tests.brokers import execute, value
from tests.postgres import Database

HELD = 5_000
INSERT = """
    insert into noetl.queue (
      execution_id, node_id, node_name, node_type, action, status, held_for, limit_name, limit_key
    )
    select $2::bigint, $2::bigint || ':a#1.' || g, 'a', 'python', '{}', $1::text,
      case when $1 = 'held' then array[$4::text] end,
      case when $4 = 'limit' then 'api' end, case when $4 = 'limit' then 'k' end
    from generate_series(1, $3::int) g"""
NEXT_ID = "select noetl.next_id()"
END = """
    select noetl.complete_job(l.queue_id, 'w', l.attempts)
    from (select * from noetl.lease_jobs('w') offset 0) l"""


async def pages_of(database: Database, statement: str, **settings: str) -> int:
    """Return how many pages a statement about one job reads, in a session with these settings; it is rolled back."""
    connection = await connect(database, name="test")
    # the plan after some calls
    for name, setting in {"plan_cache_mode": "force_generic_plan", **settings}.items():
        await connection.execute("select set_config($1, $2, false)", name, setting)
    try:
        plans: list[Any] = []
        for _ in range(3):  # the first calls fill the caches of the session
            transaction = connection.transaction()
            await transaction.start()
            [[plan]] = await connection.fetch(f"explain (analyze, buffers, format json) {statement}")
            plans.append(plan if isinstance(plan, list) else json.loads(plan))
            await transaction.rollback()
        top = plans[-1][0]["Plan"]
        return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "statement, held_for", [("select noetl.lease_jobs('w')", "pause"), (END, "limit")], ids=["lease", "lease and end"]
)
async def test_held_jobs_cost_others_nothing(database: Database, statement: str, held_for: str) -> None:
    """The index of ready jobs does not contain them. Ended jobs stand there before, so all indexes are as deep then."""
    await execute(database, INSERT, "queued", 1, 20, None)
    await execute(database, INSERT, "done", 3, HELD, None)
    alone = await pages_of(database, statement)
    await execute(database, INSERT, "held", 2, HELD, held_for)
    assert await pages_of(database, statement) <= alone + 3


async def test_a_place_of_another_key_costs_the_same(database: Database) -> None:
    """Whatever the planner knows about the table. The end of a job gives its slot to the next one."""
    await execute(database, "insert into noetl.limit (name, concurrency) values ('api', 1)")
    for status in ("queued", "held", "held"):
        await execute(database, INSERT.replace("'k'", "'other'"), status, await value(database, NEXT_ID), 1, "limit")
    alone = await pages_of(database, END)
    await execute(database, INSERT, "held", 2, HELD, "limit")
    await execute(database, "analyze noetl.queue")
    assert await pages_of(database, END) <= alone + 10
