"""One execution in a thousand cannot be decided: how fast are the others?"""

from __future__ import annotations

from benchmarks.bench import Bench, Database
from benchmarks.drain import Drained, drained
from benchmarks.results import Row, at_least, ratios

BROKEN_EVERY = 1_000  # executions; half of the broken ones fail in the core, half in the database
BREAK_STATE = """
    update noetl.execution_state
    set tokens = '{"status": "RUNNING", "seen": "no number"}'
    where execution_id = any ($1)"""


async def measure(bench: Bench) -> list[Row]:
    """Measure the drain with broken executions against the drain without."""
    executions = bench.scaled(10_000, 2_000)
    poisoned: list[Drained] = []
    clean: list[Drained] = []
    for index in range(bench.rounds):
        for broken in (True, False) if index % 2 else (False, True):
            (poisoned if broken else clean).append(await _round(bench, executions, broken=broken))
    rates = [tuple(one.rate for one in drains) for drains in (poisoned, clean)]
    return [
        Row(figure="poison", what="clean", unit="/s", values=rates[1]),
        Row(figure="poison", what="poisoned ÷ clean", unit="×", values=ratios(*rates), bar=at_least(0.95)),
    ]


async def _round(bench: Bench, executions: int, *, broken: bool) -> Drained:
    async with bench.database() as database:

        async def break_executions(started: list[int]) -> int:
            return await _break_executions(database, started if broken else [])

        round_ = await drained(database, executions, break_executions=break_executions)
        dead = await database.connection.fetchval("select count(distinct execution_id) from noetl.dead_letter")
        if dead != (executions // BROKEN_EVERY if broken else 0):
            raise RuntimeError(f"{dead} executions have dead letters")
        return round_


async def _break_executions(database: Database, started: list[int]) -> int:
    """Break states for the core, and refuse turns in the database; both kinds of rounds have the constraint."""
    chosen = started[::BROKEN_EVERY]
    in_core, in_database = chosen[::2], chosen[1::2]
    await database.connection.execute(BREAK_STATE, in_core)
    listed = ", ".join(map(str, in_database))
    check = f"execution_id <> all ('{{{listed}}}'::bigint[])"
    await database.connection.execute(f"alter table noetl.turn add constraint refused check ({check}) not valid")
    return len(chosen)
