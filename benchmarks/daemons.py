"""Several processes and several daemons against one, and what a daemon uses that has nothing to do."""

from __future__ import annotations

import asyncio
import time

from benchmarks.bench import Bench
from benchmarks.drain import drained
from benchmarks.results import Row, at_least, at_most, ratios

ROUNDS = 3


async def measure(bench: Bench) -> list[Row]:
    """The same drain by one, by two and by four; `drained` raises where anything is lost."""
    executions = bench.scaled(2_000, 300)
    arrangements = {"--processes 2": (2, 1), "2 daemons": (1, 2), "4 daemons": (1, 4)}
    ones: list[float] = []
    rates: dict[str, list[float]] = {name: [] for name in arrangements}
    for _ in range(ROUNDS):
        async with bench.database() as database:
            ones.append((await drained(database, executions)).rate)
        for name, (processes, daemons) in arrangements.items():
            async with bench.database() as database:
                rates[name].append((await drained(database, executions, processes=processes, daemons=daemons)).rate)
    rows = [
        Row(figure="daemons", what=f"{name} ÷ 1", unit="×", values=ratios(found, ones), bar=at_least(1.4))
        for name, found in rates.items()
    ]
    return [*rows, await _idle(bench)]


async def _idle(bench: Bench) -> Row:
    seconds = bench.scaled(20, 5)
    values, probes = [], []
    async with bench.database() as database, database.daemon() as daemon:
        for _ in range(ROUNDS):
            probes.append(await database.probe())
            before, began = daemon.seconds(), time.perf_counter()
            await asyncio.sleep(seconds)
            values.append((daemon.seconds() - before) / (time.perf_counter() - began) * 100)
    return Row(
        figure="daemons", what="idle, of a core", unit="%", values=tuple(values), bar=at_most(1), probes=tuple(probes)
    )
