"""`python -m benchmarks [NAMES…] [--quick]`: measures, prints a table, and writes JSON and a plot."""

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
    buckets,
    citus,
    core,
    cost,
    daemons,
    drain,
    functions,
    history,
    jobs,
    latency,
    notify,
    old_events,
    plot,
    poison,
    replay,
    report,
    schedules,
    signals,
    startup,
    steps,
    timers,
    tools,
    width,
)
from benchmarks.bench import SETTINGS, Bench
from benchmarks.results import Row
from noetl_broker import embedded_postgres, logs

Measure = Callable[[Bench], Awaitable[list[Row]]]
FIGURES: Final = MappingProxyType[str, Measure](
    {
        "core": core.measure,
        "start": startup.measure,
        "drain": drain.measure,
        "steps": steps.measure,
        "functions": functions.measure,
        "tools": tools.measure,
        "jobs": jobs.measure,
        "latency": latency.measure,
        "loaded": latency.measure_loaded,
        "history": history.measure,
        "width": width.measure,
        "database": old_events.measure,
        "bell": notify.measure,
        "daemons": daemons.measure,
        "cost": cost.measure,
        "replay": replay.measure,
        "poison": poison.measure,
        "timers": timers.measure,
        "signals": signals.measure,
        "schedules": schedules.measure,
        "buckets": buckets.measure,
        "citus": citus.measure,
    }
)
RESULTS: Final = Path(__file__).parent / "results"


def main() -> None:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(FIGURES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes: only to see that everything runs")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="folder of the results (default: %(default)s)")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in FIGURES]
    if unknown:
        parser.error(f"no benchmark is named {unknown[0]!r}: choose from {', '.join(FIGURES)}")
    logs.configure(level="error", form="console")
    with embedded_postgres.start(settings=SETTINGS) as postgres:
        bench = Bench(postgres=postgres, quick=asked.quick)
        rows, version, failed = asyncio.run(_measure(bench, asked.names or list(FIGURES)))
    report.show(rows)
    # The page shows only a run of all benchmarks, with the names of those that failed.
    name = "quick" if asked.quick else "part" if asked.names else "results"
    path = report.keep(rows, folder=asked.folder, name=name, postgres=version, failed=failed)
    plot.draw(path)
    if failed:
        sys.exit(f"not measured, see above: {', '.join(failed)}")


async def _measure(bench: Bench, names: list[str]) -> tuple[list[Row], str, list[str]]:
    """Return the rows, the version of Postgres, and the names of benchmarks that failed; the others go on."""
    rows: list[Row] = []
    failed: list[str] = []
    async with bench.database() as database:
        version = str(await database.connection.fetchval("show server_version"))
    for name in names:
        began = time.perf_counter()
        print(f"{name} …", flush=True)
        try:
            rows += await FIGURES[name](bench)
        except Exception:  # noqa: BLE001 - keep the results of the others
            traceback.print_exc()
            failed.append(name)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    return rows, version, failed


if __name__ == "__main__":
    main()
