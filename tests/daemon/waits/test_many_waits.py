"""Twenty thousand waits and timers cost a turn, a lease and a fire a few index pages."""

from __future__ import annotations

import re
from typing import Any

from noetl_broker.store.connect.connection import HOT_PATH
from noetl_broker.store.queries import sql
from tests.postgres import Database
from tests.sessions import Session, session

FILL = (
    """
    insert into noetl.timer (execution_id, node_id, step, purpose, due_at)
    select n, n || ':cool', 'cool', 'wait', now() + n * interval '1 second'
    from generate_series(1, 20000) n""",
    """
    insert into noetl.wait (execution_id, node_id, step, kind, request)
    select n, n || ':cool', 'cool', 'timer', '{}'
    from generate_series(1, 20000) n""",
    "analyze noetl.timer",
    "analyze noetl.wait",
)
ONE = "array[5000]::bigint[], array['5000:cool']"
MORE_PAGES = 25  # deeper indexes
RUNS = 5


async def pages(own: Session[Any], statement: str, before: str = "") -> int:
    """Return how many pages a statement reads: the least of some runs after the first.

    An autovacuum between two runs makes the next one plan again, which reads the catalogs.
    """
    found = []
    for _ in range(RUNS):
        if before:
            await own.execute(before)
        async with own.transaction():
            [plan] = await own.fetchval(f"explain (analyze, buffers, format json) {statement}")
        found.append(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])
    return int(min(found[1:]))


async def counted(own: Session[Any]) -> dict[str, int]:
    """Return the pages that each statement reads."""
    statements = {
        "lease": "select noetl.lease_jobs('w')",
        "fire": "select noetl.fire_timers(1000)",
        "end": f"execute end_waits ({ONE}, array['done'])",
        "settle": "execute settle_executions (array[5001]::bigint[])",
    }
    return {name: await pages(own, statement) for name, statement in statements.items()}


async def plan_of_a_turn(own: Session[Any]) -> str:
    """Return the plan of the statement that writes turns."""
    text = sql("write_turns")
    nulls = ", ".join(["null"] * max(map(int, re.findall(r"\$(\d+)", text))))
    await own.execute(f"prepare turns as {text}")
    plan = await own.fetch(f"explain (costs off) execute turns ({nulls})")
    await own.execute("deallocate turns")
    return "\n".join(line for [line] in plan)


async def test_many_waits_and_timers_cost_a_few_pages(database: Database) -> None:
    """Leases, fires and ends read about as many pages as without them, and turns have the same plan."""
    async with session(database) as own:
        for name, setting in HOT_PATH.items():
            await own.execute(f"set {name} = {setting}")
        for name in ("end_waits", "settle_executions"):
            await own.execute(f"prepare {name} as {sql(name)}")
        plan, before = await plan_of_a_turn(own), await counted(own)
        for statement in FILL:
            await own.execute(statement)
        assert await plan_of_a_turn(own) == plan
        after = await counted(own)
    grown = {name: (before[name], after[name]) for name in before if after[name] > before[name] + MORE_PAGES}
    assert grown == {}
    assert abs(after["lease"] - before["lease"]) <= 1


async def test_a_request_of_one_wait_does_not_read_the_others(database: Database) -> None:
    """Also while the table has no statistics: the index of open waits begins with the key, not with the execution."""
    fill = """
    insert into noetl.wait (execution_id, node_id, step, kind, request, names, key, since_at)
    select n, n || ':paid', 'paid', 'signal', '{}', '{payment}', n, now()
    from generate_series($1::int, $2::int) n"""
    async with session(database) as own:
        for name, setting in HOT_PATH.items():
            await own.execute(f"set {name} = {setting}")
        await own.execute(fill, 1, 10)
        before = await pages_of_a_request(own)
        await own.execute(fill, 11, 20_000)
        after = await pages_of_a_request(own)
    assert after <= before + MORE_PAGES


async def pages_of_a_request(own: Session[Any]) -> int:
    """Return how many pages a match of one request reads."""
    look = "insert into noetl.match_request (execution_id, node_id) values (5, '5:paid')"
    return await pages(own, "select noetl.match_signals(1000)", before=look)
