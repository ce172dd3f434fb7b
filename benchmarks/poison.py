"""One execution in a thousand that nobody can decide on: how fast are the others, beside a round without it?"""

from __future__ import annotations

from benchmarks.bench import Bench, Database
from benchmarks.drain import Drained, drained
from benchmarks.results import Row, at_least, ratios

EVERY = 1_000  # execution; half of these fail in the core, half in the database
SPOIL_STATE = """
    update noetl.execution_state
    set tokens = '{"status": "RUNNING", "seen": "no number"}'
    where execution_id = any ($1)"""


async def measure(bench: Bench) -> list[Row]:
    """The drain with poison in it, against the drain without."""
    executions = bench.scaled(10_000, 2_000)
    poisoned: list[Drained] = []
    clean: list[Drained] = []
    for place in range(bench.rounds):
        for spoilt in (True, False) if place % 2 else (False, True):
            (poisoned if spoilt else clean).append(await _round(bench, executions, spoilt=spoilt))
    rates = [tuple(one.rate for one in drains) for drains in (poisoned, clean)]
    return [
        Row(figure="poison", what="clean", unit="/s", values=rates[1]),
        Row(figure="poison", what="poisoned ÷ clean", unit="×", values=ratios(*rates), bar=at_least(0.95)),
    ]


async def _round(bench: Bench, executions: int, *, spoilt: bool) -> Drained:
    async with bench.database() as database:

        async def spoil(started: list[int]) -> int:
            return await _spoil(database, started if spoilt else [])

        round_ = await drained(database, executions, spoil=spoil)
        dead = await database.connection.fetchval("select count(distinct execution_id) from noetl.dead_letter")
        if dead != (executions // EVERY if spoilt else 0):
            raise RuntimeError(f"the mail of {dead} executions was set aside")
        return round_


async def _spoil(database: Database, started: list[int]) -> int:
    """A state that the core cannot read, and a turn that the database refuses; both rounds pay for the refusing."""
    chosen = started[::EVERY]
    in_core, in_database = chosen[::2], chosen[1::2]
    await database.connection.execute(SPOIL_STATE, in_core)
    listed = ", ".join(map(str, in_database))
    check = f"execution_id <> all ('{{{listed}}}'::bigint[])"
    await database.connection.execute(f"alter table noetl.turn add constraint refused check ({check}) not valid")
    return len(chosen)
