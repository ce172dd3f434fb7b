"""`python -m benchmarks.soak --minutes N`: the same load for a long time, without and with an old snapshot.

A daemon with default settings, a worker that keeps the rate, and a worker that measures latency. The time is divided
into windows. The last quarter of the windows is compared with the first.

A shared machine may be twice as slow in one minute as in another. So each window also has a young side: a new database
with its own daemon and load, on the same server at the same time. If p99 drifts but its ratio to the young side does
not, the machine has slowed, or something that slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import IO, Any, Final, NamedTuple, Self

from rich.console import Console
from rich.table import Table

from benchmarks.bench import SETTINGS, Bench, Database
from benchmarks.latency import Load, Watch
from benchmarks.playbooks import chain
from benchmarks.processes import Daemon
from benchmarks.results import percentile
from noetl_broker import embedded_postgres, logs
from noetl_broker.store.connect.connection import connect

WINDOWS: Final = 16
WARM_SECONDS: Final = 5.0
DEAD: Final = """
    select coalesce(sum(n_dead_tup), 0)
    from pg_stat_user_tables
    where schemaname = 'noetl'"""


class Window(NamedTuple):
    """The values of one window: transitions a second, milliseconds, a count, megabytes."""

    rate: float
    step_p99: float
    claim_p99: float
    young_step_p99: float
    young_claim_p99: float
    dead: float
    resident: float


class Bound(NamedTuple):
    """The limits for the ratio of the last quarter to the first."""

    what: str
    of: Callable[[Window], float]
    least: float = 0.0
    most: float = 1.0


BOUNDS: Final = (
    Bound("transitions a second", lambda window: window.rate, 0.8, 1.25),
    Bound("p99 of a step, ms", lambda window: window.step_p99, most=1.2),
    Bound("the same ÷ of a young one", lambda window: window.step_p99 / window.young_step_p99, most=1.2),
    Bound("p99 of a claim, ms", lambda window: window.claim_p99, most=1.5),
    Bound("the same ÷ of a young one", lambda window: window.claim_p99 / window.young_claim_p99, most=1.5),
    Bound("dead tuples", lambda window: window.dead, most=2.0),
    Bound("memory, MB", lambda window: window.resident, most=1.2),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A database under load, with its daemon, load and measurements."""

    daemon: Daemon
    watch: Watch
    load: Load
    log: IO[bytes]

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, bench: Bench, *, rate: int, old_snapshot: bool) -> AsyncIterator[Self]:
        """Run this rate until the block ends."""
        with tempfile.TemporaryFile() as log:
            async with (
                bench.database() as database,
                _snapshot(database, held=old_snapshot),
                database.daemon(log=log, log_level="debug", log_format="json") as daemon,
            ):
                await database.register("probe", chain("probe", kind="http"))
                await database.register("load", chain("load"))
                async with Watch.on(database) as watch, Load.on(database, per_second=rate) as load:
                    await asyncio.sleep(WARM_SECONDS)
                    yield cls(daemon=daemon, watch=watch, load=load, log=log)

    async def p99s(self, seconds: float) -> tuple[float, float]:
        """Return the p99 of a step and of a claim, in milliseconds."""
        began, place = time.perf_counter(), self.log.seek(0, 2)
        spans: list[float] = []
        while time.perf_counter() - began < seconds:
            spans += await self.watch.spans(1)
        self.log.seek(place)
        claims = [float(line["claim_ms"]) for line in map(_parsed, self.log.readlines()) if "claim_ms" in line]
        return percentile(spans, 0.99), percentile(claims, 0.99)


def main() -> None:
    """Run the soak; exit 1 if a value drifts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each of the two parts (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=500, help="transitions a second (default: %(default)s)")
    asked = parser.parse_args()
    logs.configure(level="error", form="console")
    with embedded_postgres.start(settings=SETTINGS) as postgres:
        bench = Bench(postgres=postgres, quick=False)
        parts = {
            name: asyncio.run(_soak(bench, minutes=asked.minutes, rate=asked.rate, old_snapshot=old))
            for name, old in (("as it is", False), ("beside an old snapshot", True))
        }
    drifted = [_show(name, windows, old_snapshot=name != "as it is") for name, windows in parts.items()]
    if any(drifted):
        sys.exit("a value drifted, see above")


async def _soak(bench: Bench, *, minutes: float, rate: int, old_snapshot: bool) -> list[Window]:
    async with Side.of(bench, rate=rate, old_snapshot=old_snapshot) as old:
        return [await _window(bench, old, rate, minutes * 60 / WINDOWS) for _ in range(WINDOWS)]


@contextlib.asynccontextmanager
async def _snapshot(database: Database, *, held: bool) -> AsyncIterator[None]:
    """Hold an old snapshot if `held`, so that vacuum can remove no row."""
    connection = await connect(database.target, name="snapshot")
    try:
        if held:
            await connection.execute("set idle_in_transaction_session_timeout = 0")
            await connection.execute("begin isolation level repeatable read")
            await connection.fetchval("select count(*) from noetl.event")
        yield
    finally:
        await connection.close()


async def _window(bench: Bench, old: Side, rate: int, seconds: float) -> Window:
    began = time.perf_counter()
    async with Side.of(bench, rate=rate, old_snapshot=False) as young:
        since, before = time.perf_counter(), old.load.completed
        left = max(seconds - (since - began), WARM_SECONDS)
        (step, claim), (young_step, young_claim) = await asyncio.gather(old.p99s(left), young.p99s(left))
        pace = (old.load.completed - before) / (time.perf_counter() - since)
    dead = float(await old.watch.database.connection.fetchval(DEAD))
    return Window(pace, step, claim, young_step, young_claim, dead, old.daemon.resident_bytes() / 1e6)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _show(name: str, windows: list[Window], *, old_snapshot: bool) -> bool:
    """Print the table of a part; return whether a value drifted. Dead tuples grow under an old snapshot."""
    table = Table(title=f"soak, {name}: {len(windows)} windows")
    for heading in ("what", "first quarter", "last quarter", "ratio", "allowed", ""):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    quarter = max(len(windows) // 4, 1)
    drifted = False
    for bound in BOUNDS:
        first, last = (statistics.median(map(bound.of, part)) for part in (windows[:quarter], windows[-quarter:]))
        ratio = last / first if first else 1.0
        allowed = verdict = ""
        if not (old_snapshot and bound.what == "dead tuples"):
            holds = bound.least <= ratio <= bound.most
            drifted |= not holds
            allowed, verdict = f"{bound.least:g} to {bound.most:g}", "met" if holds else "missed"
        table.add_row(bound.what, f"{first:,.2f}", f"{last:,.2f}", f"{ratio:.2f}", allowed, verdict)
    Console(width=100).print(table)
    return drifted


if __name__ == "__main__":
    main()
