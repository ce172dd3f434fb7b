"""Functions of a `Worker`, beside programs that run Python in their workers: the same workflows as in `steps`.

All have the same concurrency, one process, and a database on the same server.
"""

from __future__ import annotations

from typing import Final

from benchmarks.bench import Bench
from benchmarks.results import Row, at_least, ratios
from benchmarks.steps import installed_peers, run_peer, run_workflows, ten_steps

ROUNDS: Final = 3
CONCURRENCIES: Final = (16, 64)
FUNCTION_WORKER: Final = "benchmarks.function_worker"


async def measure(bench: Bench) -> list[Row]:
    """Measure steps a second, in turns with each installed peer."""
    rows: list[Row] = []
    for concurrency in CONCURRENCIES:
        rows += await _beside_peers(bench, concurrency)
    return rows


async def _beside_peers(bench: Bench, concurrency: int) -> list[Row]:
    workflows, figure = bench.scaled(500, 50), f"functions, {concurrency} at a time"
    ours, probes = [], []
    theirs: dict[str, list[float]] = {name: [] for name in installed_peers()}
    for _ in range(ROUNDS):
        for name, found in theirs.items():
            async with bench.database() as database:
                found.append(await run_peer(name, database.dsn, workflows, concurrency))
        async with bench.database() as database:
            probes.append(await database.probe())
            await database.register("steps", ten_steps("trivial"))
            async with database.daemon(), database.worker(FUNCTION_WORKER, str(concurrency)):
                await run_workflows(database.dsn, bench, 10)  # warm-up
                ours.append(workflows * 10 / await run_workflows(database.dsn, bench, workflows))
    rows = [Row(figure=figure, what="Worker", unit="/s", values=tuple(ours), probes=tuple(probes))]
    rows += [Row(figure=figure, what=name, unit="/s", values=tuple(found)) for name, found in theirs.items()]
    if theirs:
        fastest = [max(found) for found in zip(*theirs.values(), strict=True)]
        what = "Worker ÷ the fastest of them"
        rows.append(Row(figure=figure, what=what, unit="×", values=ratios(ours, fastest), bar=at_least(1.5)))
    return rows
