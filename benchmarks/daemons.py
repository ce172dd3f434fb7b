"""Several processes and daemons against one; the processor time of an idle daemon."""

from __future__ import annotations

import asyncio
import statistics
import time

from benchmarks.bench import Bench
from benchmarks.drain import drained
from benchmarks.results import Row, at_least, at_most, ratios

ROUNDS = 3
SHARE = 0.2  # so that four of them and the server fit two cores
ARRANGEMENTS = {"1": (1, 1), "--processes 2": (2, 1), "2 daemons": (1, 2), "4 daemons": (1, 4)}  # processes, daemons


async def measure(bench: Bench) -> list[Row]:
    """Measure the same drain by one, two and four daemons; `drained` raises if anything is lost.

    At full speed, one daemon with its sessions uses two cores, so there is no bar. With a share of a core each, as if
    each had its own machine, the measurement shows whether their rates add up.
    """
    rows: list[Row] = []
    for figure, share in (("daemons", None), (f"daemons, {SHARE:g} of a core each", SHARE)):
        rows += await _scaling(bench, figure, share)
    return [*rows, await _idle(bench)]


async def _scaling(bench: Bench, figure: str, share: float | None) -> list[Row]:
    executions = bench.scaled(2_000, 300)
    rates: dict[str, list[float]] = {name: [] for name in ARRANGEMENTS}
    for _ in range(ROUNDS):
        for name, (processes, daemons) in ARRANGEMENTS.items():
            async with bench.database() as database:
                done = await drained(database, executions, processes=processes, daemons=daemons, share=share)
                rates[name].append(done.rate)
    ones = rates.pop("1")
    bar = None if share is None else at_least(1.4)
    return [
        Row(figure=figure, what=f"{name} ÷ 1", unit="×", values=ratios(found, ones), bar=bar,
            beside={"turns/s": statistics.median(found)})
        for name, found in rates.items()
    ]  # fmt: skip


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
