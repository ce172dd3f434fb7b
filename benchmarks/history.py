"""Whether a transition costs the same at the start and at the end of a long history."""

from __future__ import annotations

import statistics

from benchmarks.bench import Bench, Database
from benchmarks.latency import Watch
from benchmarks.playbooks import chain, loop
from benchmarks.results import Probe, Row, at_most

ROUNDS = 3
SHARE = 100  # transitions at the start and at the end


async def measure(bench: Bench) -> list[Row]:
    """Measure a playbook of a thousand steps, and a loop of nine thousand visits."""
    steps, visits = bench.scaled(1_000, 250), bench.scaled(9_000, 400)
    async with bench.database() as database, database.daemon():
        await database.register("long", chain("long", steps, kind="http"))
        await database.register("loop", loop("loop", visits))
        return [
            await _row(database, "long", f"{steps:,} steps, last {SHARE} ÷ first", counting=False),
            await _row(database, "loop", f"loop of {visits:,} visits, last {SHARE} ÷ first", counting=True),
        ]


async def _row(database: Database, path: str, what: str, *, counting: bool) -> Row:
    values: list[float] = []
    probes: list[Probe] = []
    async with Watch.on(database) as watch:
        for _ in range(ROUNDS):
            probes.append(await database.probe())
            spans = await watch.spans(1, path=path, counting=counting)
            values.append(statistics.median(spans[-SHARE:]) / statistics.median(spans[:SHARE]))
    return Row(
        figure="flat in history", what=what, unit="×", values=tuple(values), bar=at_most(1.2), probes=tuple(probes)
    )
