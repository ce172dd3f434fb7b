"""`python -m benchmarks [NAMES…] [--quick]`: measure, print one table, and keep it as JSON and as a plot."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import MappingProxyType
from typing import Final

from benchmarks import (
    bell,
    core,
    cost,
    daemons,
    drain,
    history,
    latency,
    old_events,
    plot,
    poison,
    replay,
    report,
    start,
    steps,
    width,
)
from benchmarks.bench import SETTINGS, Bench
from benchmarks.results import Row
from noetl_broker import logs
from noetl_broker.store import embedded

Measure = Callable[[Bench], Awaitable[list[Row]]]
FIGURES: Final = MappingProxyType[str, Measure](
    {
        "core": core.measure,
        "start": start.measure,
        "drain": drain.measure,
        "steps": steps.measure,
        "latency": latency.measure,
        "loaded": latency.measure_loaded,
        "history": history.measure,
        "width": width.measure,
        "database": old_events.measure,
        "bell": bell.measure,
        "daemons": daemons.measure,
        "cost": cost.measure,
        "replay": replay.measure,
        "poison": poison.measure,
    }
)
RESULTS: Final = Path(__file__).parent / "results"


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether everything runs, not how fast")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the results go (%(default)s)")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in FIGURES]
    if unknown:
        parser.error(f"there is no figure {unknown[0]!r}: choose from {', '.join(FIGURES)}")
    logs.configure(level="error", form="console")
    with embedded.start(settings=SETTINGS) as postgres:
        bench = Bench(postgres=postgres, quick=asked.quick)
        rows, version, failed = asyncio.run(_measure(bench, asked.names or list(FIGURES)))
    report.show(rows)
    # Only a run of everything may stand in the page; it says which figures failed.
    name = "quick" if asked.quick else "part" if asked.names else "results"
    path = report.keep(rows, folder=asked.folder, name=name, postgres=version, failed=failed)
    plot.draw(path)
    if failed:
        sys.exit(f"not measured, see above: {', '.join(failed)}")


async def _measure(bench: Bench, names: list[str]) -> tuple[list[Row], str, list[str]]:
    """What was measured, on which Postgres, and the figures that failed: they take no other with them."""
    rows: list[Row] = []
    failed: list[str] = []
    async with bench.database() as database:
        version = str(await database.connection.fetchval("show server_version"))
    for name in names:
        began = time.perf_counter()
        print(f"{name} …", flush=True)
        try:
            rows += await FIGURES[name](bench)
        except Exception:  # noqa: BLE001 - whatever it is, the hour before it was not in vain
            traceback.print_exc()
            failed.append(name)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    return rows, version, failed


if __name__ == "__main__":
    main()
