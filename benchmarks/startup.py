"""The time of `--help`, and the time until the daemon is ready."""

from __future__ import annotations

import asyncio
import time

from benchmarks.bench import Bench, program
from benchmarks.results import Row, at_most


async def measure(bench: Bench) -> list[Row]:
    """Measure `--help`, and `run` until READY."""
    helps, readies, probes = [], [], []
    async with bench.database() as database:
        for _ in range(bench.rounds):
            probes.append(await database.probe())
            began = time.perf_counter()
            process = await asyncio.create_subprocess_exec(*program("--help"), stdout=asyncio.subprocess.DEVNULL)
            await process.wait()
            helps.append(time.perf_counter() - began)
            async with database.daemon() as daemon:
                readies.append(time.perf_counter() - daemon.began)
    return [
        Row(figure="start", what="--help", unit="s", values=tuple(helps), bar=at_most(0.3), probes=tuple(probes)),
        Row(figure="start", what="run to READY", unit="s", values=tuple(readies), bar=at_most(1), probes=tuple(probes)),
    ]
