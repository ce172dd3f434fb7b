"""What a page asks of the database reads by a key, however many executions and turns there are.

If most executions are short, the planner expects few turns. It would then join the turns of a long one with all its
events, one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.admin.recovery import search_failed
from noetl_broker.store.queries import sql
from tests.brokers import execute, value
from tests.postgres import Database
from tests.sessions import session

# 2,000 failed executions with two turns and three events each.
SHORT_ONES = (
    """
    insert into noetl.execution (execution_id, path, status, parent_execution_id)
    select noetl.next_id(), 'story', 'FAILED', nullif(n % 500, 1) from generate_series(1, 2000) n
    """,
    """
    insert into noetl.event (execution_id, event_id, event_type)
    select x.execution_id, x.execution_id + g, 'action_completed'
    from noetl.execution x cross join generate_series(1, 3) g
    """,
    """
    insert into noetl.turn (execution_id, turn, event_id, outcome, decided_at)
    select x.execution_id, g, x.execution_id + g, 'decided', now()
    from noetl.execution x cross join generate_series(1, 2) g
    """,
)
CHILDREN = {"list_blocks": "7, 10", "undo_obstacle": "7"}


@pytest.fixture
async def filled(database: Database) -> Database:
    """Return a database with many short executions and its statistics."""
    for text in SHORT_ONES:
        await execute(database, text)
    partitions = [
        await value(database, f"select tableoid::regclass::text from noetl.{name} limit 1")
        for name in ("execution", "event", "turn")
    ]
    for name in partitions:
        await execute(database, f"analyze {name}")
    return database


async def scans(database: Database, statement: str, arguments: str) -> list[tuple[str, str]]:
    """Return the tables that a statement scans in any call, each with the condition of its index, or its name."""
    async with session(database) as own:
        await own.execute("set plan_cache_mode = force_generic_plan")
        await own.execute(f"prepare asked as {sql(statement)}")
        plan = await own.fetchval(f"explain (format json) execute asked ({arguments})")
    return [*_scans((plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"])]


async def test_the_event_of_a_turn_is_found_by_its_key(filled: Database) -> None:
    """So 5,000 turns are 5,000 look-ups, and no 5,000 times 20,000 comparisons."""
    found = [condition for name, condition in await scans(filled, "explain_turns", "7") if name.startswith("event_")]
    assert found
    assert [condition for condition in found if "event_id =" not in condition.replace("execution_id =", "")] == []


@pytest.mark.parametrize("statement", CHILDREN)
async def test_children_that_ended_are_found_by_their_parent(filled: Database, statement: str) -> None:
    """Beside a million executions, to read them all takes half a second."""
    scanned = await scans(filled, statement, CHILDREN[statement])
    found = [condition for name, condition in scanned if name == "execution"]
    assert found
    assert found == [condition for condition in found if condition]


async def test_a_search_is_planned_for_its_filters(filled: Database) -> None:
    """A plan for all filters would join the state of each execution, also where no filter reads it."""
    asked = "select coalesce(sum(generic_plans), 0) from pg_prepared_statements where statement = $1"
    async with session(filled) as own:
        for _ in range(7):  # the server plans a statement that is kept for its arguments five times, then for all
            await search_failed(own, Filter(), limit=100)
        assert await own.fetchval(asked, sql("search_failed")) == 0


def _scans(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "Relation Name" in node and "Scan" in node["Node Type"]:
        yield node["Relation Name"], (node.get("Index Cond") or node.get("Recheck Cond") or node.get("Index Name", ""))
    for child in node.get("Plans", ()):
        yield from _scans(child)
