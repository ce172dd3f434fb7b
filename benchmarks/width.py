"""Whether an item of an iterator costs the same among a hundred and a hundred thousand, with gathering."""

from __future__ import annotations

import asyncio
import time

from benchmarks.bench import Bench, Database
from benchmarks.playbooks import leaf, wide
from benchmarks.results import Row, at_most, ratios


async def measure(bench: Bench) -> list[Row]:
    """Measure microseconds an item, narrow and wide in turns, with eight items at a time and with all at once."""
    many = bench.scaled(100_000, 2_000)
    rows = []
    for what, concurrency in (("8 at a time", 8), ("all at once", 100_000)):
        narrow, broad, probes = [], [], []
        for _ in range(3):
            async with bench.database() as database:
                probes.append(await database.probe())
                await database.register("leaf", leaf("leaf"))
                await database.register("wide", wide("wide", concurrency, child="leaf"))
                async with database.daemon():
                    await _per_item(database, 100, 5)
                    narrow.append(await _per_item(database, 100, max(20, many // 1000)))
                    broad.append(await _per_item(database, many, 1))
        rows.append(
            Row(figure="flat in width", what=f"{many:,} ÷ 100, {what}", unit="×", values=ratios(broad, narrow),
                bar=at_most(1.2), beside={"µs an item of 100": sorted(narrow)[1], "of the wide one": sorted(broad)[1]},
                probes=tuple(probes))
        )  # fmt: skip
    return rows


async def _per_item(database: Database, items: int, times: int) -> float:
    notified = asyncio.Event()

    def heard(*_: object) -> None:
        notified.set()

    connection = database.connection
    await connection.add_listener("noetl_end", heard)
    began = time.perf_counter()
    for _ in range(times):
        execution_id = (await database.start("wide", {"n": items}))[0]
        while (status := await _status(database, execution_id)) == "RUNNING":
            await notified.wait()
            notified.clear()
        if status != "COMPLETED":
            raise RuntimeError(f"the iterator of {items} items is {status}")
    taken = time.perf_counter() - began
    await connection.remove_listener("noetl_end", heard)
    return taken / (items * times) * 1e6


async def _status(database: Database, execution_id: int) -> str:
    return str(
        await database.connection.fetchval(
            "select status from noetl.execution where execution_id = $1", execution_id
        )
    )  # fmt: skip
