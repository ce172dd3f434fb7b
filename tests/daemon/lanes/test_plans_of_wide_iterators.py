"""Statements for items use the whole key, whatever the planner's statistics say.

If most executions are short, the planner expects few rows. It would then join two lists of a hundred thousand rows with
a nested loop.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from noetl_broker.store.connect.connection import HOT_PATH
from noetl_broker.store.queries import sql
from tests.brokers import execute, value
from tests.postgres import Database
from tests.sessions import session

# 200 ended executions with thirty events, ten items and ten jobs each.
SHORT_ONES = (
    """
    insert into noetl.event (execution_id, event_id, event_type, result)
    select noetl.next_id() / 1000 * 1000 + x, g, 'action_completed', '{"n": 1}'
    from generate_series(1, 200) x cross join generate_series(1, 30) g
    """,
    """
    insert into noetl.iteration (execution_id, node_id, index, status, result_event_id)
    select e.execution_id, e.execution_id || ':each', e.event_id, 'COMPLETED', e.event_id
    from noetl.event e where e.event_id <= 10
    """,
    """
    insert into noetl.queue (execution_id, node_id, node_name, node_type, action)
    select e.execution_id, e.execution_id || ':each#1.' || e.event_id, 'each', 'python', '{}'
    from noetl.event e where e.event_id <= 10
    """,
)
TABLES = ("event", "iteration", "queue")
ARGUMENTS = {"write_posts": 4, "cancel_visits": 3}


@pytest.mark.parametrize(
    "statement, table, key", [("write_posts", "event", "event_id"), ("cancel_visits", "queue", "node_id")]
)
async def test_an_item_is_found_by_its_whole_key(database: Database, statement: str, table: str, key: str) -> None:
    """In the plan, each scan has the whole key in its condition."""
    for text in SHORT_ONES:
        await execute(database, text)
    for name in TABLES:
        partition = await value(database, f"select tableoid::regclass::text from noetl.{name} limit 1")
        await execute(database, f"analyze {partition}")
    async with session(database) as own:
        for name, setting in HOT_PATH.items():
            await own.execute(f"set {name} = {setting}")
        await own.execute(f"prepare statement_for_items as {sql(statement)}")
        nulls = ", ".join(["null"] * ARGUMENTS[statement])
        plan = await own.fetchval(f"explain (format json) execute statement_for_items ({nulls})")
    found = [condition for name, condition in _scans((plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"])
             if name.startswith(f"{table}_")]  # fmt: skip
    assert found
    assert [condition for condition in found if key not in condition] == []


def _scans(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "Relation Name" in node and "Scan" in node["Node Type"]:
        yield node["Relation Name"], node.get("Index Cond") or node.get("Recheck Cond", "")
    for child in node.get("Plans", ()):
        yield from _scans(child)
