"""Timers: how late they fire, how fast many that are due at once are drained, and what a million that wait cost."""

from __future__ import annotations

import asyncio
import statistics
import time
from math import sqrt
from typing import Final

from benchmarks.bench import Bench, Database
from benchmarks.drain import drained
from benchmarks.latency import Load
from benchmarks.playbooks import chain
from benchmarks.results import Row, at_least, at_most, percentile

WAIT: Final = """
apiVersion: noetl.io/v1
kind: Playbook
metadata: {name: wait, path: wait}
workflow:
- {step: start, next: cool}
- {step: cool, type: wait, until: "{{ workload.until }}", next: end}
- {step: end, result: "{{ cool }}"}
"""
FAR: Final = {"until": "2100-01-01T00:00:00Z"}
SPREAD: Final = (
    "update noetl.timer set due_at = clock_timestamp() + interval '1 s' + random() * make_interval(secs => $1)"
)
SHIFT: Final = """
update noetl.timer
set due_at = date_trunc('second', clock_timestamp()) + interval '3 s' + random() * interval '1 s'"""
LATE: Final = """
select extract(epoch from e.created_at - (e.context ->> 'due_at')::timestamptz)::float8 * 1000 as fired,
  extract(epoch from t.decided_at - (e.context ->> 'due_at')::timestamptz)::float8 * 1000 as decided
from noetl.event e
join noetl.turn t on t.execution_id = e.execution_id and t.event_id = e.event_id
where e.event_type = 'timer_due' and e.execution_id = any($1::bigint[])"""
FILL: Final = (
    """
    insert into noetl.timer (execution_id, node_id, step, purpose, due_at)
    select n, n || ':cool', 'cool', 'wait', now() + interval '30 days' + n * interval '1 s'
    from generate_series(1, $1::bigint) n""",
    """
    insert into noetl.wait (execution_id, node_id, step, kind, request)
    select n, n || ':cool', 'cool', 'timer', '{}'
    from generate_series(1, $1::bigint) n""",
    "vacuum analyze noetl.timer",  # otherwise autovacuum would run beside the measurement
    "vacuum analyze noetl.wait",
    "checkpoint",
)
TIMES_OF_95: Final = 1.96  # standard errors


async def measure(bench: Bench) -> list[Row]:
    """Measure lateness, the drain of timers that are due at once, and the cost of those that wait."""
    return [*await _lateness(bench), *await _many_at_once(bench), *await _beside_a_million(bench)]


async def _lateness(bench: Bench) -> list[Row]:
    """Of timers at random moments, alone and during 1,000 other transitions a second."""
    rows = []
    for what, load in (("idle", 0), ("at 1,000 turns/s", 1000)):
        fired, decided, probes = [], [], []
        async with bench.database() as database, database.daemon():
            await database.register("wait", WAIT)
            await database.register("load", chain("load"))
            for _ in range(bench.rounds):
                probes.append(await database.probe())
                late = await _late(database, bench.scaled(300, 60), bench.scaled(6, 2), load)
                fired.append(percentile([one[0] for one in late], 0.99))
                decided.append(percentile([one[1] for one in late], 0.99))
        rows.append(
            Row(figure="timers", what=f"lateness p99, {what}", unit="ms", values=tuple(fired), bar=at_most(100),
                beside={"until decided": percentile(decided, 0.5)}, probes=tuple(probes))
        )  # fmt: skip
    return rows


async def _late(database: Database, timers: int, seconds: float, load: int) -> list[tuple[float, float]]:
    """Milliseconds from the due moments of so many timers until they were events, and until they were decided on."""
    ids = await database.start("wait", FAR, many=timers)
    await database.until_read()
    if load:
        async with Load.on(database, per_second=load):
            await _fire_spread(database, ids, seconds)
    else:
        await _fire_spread(database, ids, seconds)
    return [(row["fired"], row["decided"]) for row in await database.connection.fetch(LATE, ids)]


async def _fire_spread(database: Database, ids: list[int], seconds: float) -> None:
    await database.connection.execute(SPREAD, seconds)
    await database.connection.execute("select noetl.notify_timers(min(due_at)) from noetl.timer")
    await asyncio.sleep(seconds + 1)
    await _until_ended(database, ids)


async def _until_ended(database: Database, ids: list[int]) -> None:
    """Wait until these executions have completed."""
    statement = "select count(*) from noetl.execution where execution_id = any($1) and status = 'RUNNING'"
    while await database.connection.fetchval(statement, ids):  # noqa: ASYNC110 - in the database
        await asyncio.sleep(0.05)


async def _many_at_once(bench: Bench) -> list[Row]:
    """The pace of timers that are due within a second, beside the pace of the drain."""
    timers, executions = bench.scaled(100_000, 3_000), bench.scaled(2_000, 300)
    shares, paces, probes = [], [], []
    for _ in range(bench.scaled(3, 1)):
        async with bench.database() as database:
            probes.append(await database.probe())
            base = (await drained(database, executions)).rate
        async with bench.database() as database:
            paces.append(await _pace(database, timers))
        shares.append(paces[-1] / base)
    return [
        Row(figure="timers", what=f"{timers:,} due in one second ÷ the drain", unit="×", values=tuple(shares),
            bar=at_least(0.7), beside={"per second": percentile(paces, 0.5)}, probes=tuple(probes))
    ]  # fmt: skip


async def _pace(database: Database, timers: int) -> float:
    """Turns a second, from the first due moment until the last turn."""
    await database.register("wait", WAIT)
    async with database.daemon():
        for _ in range(timers // 1000):
            await database.start("wait", FAR, many=1000)
        await database.until_read()
        await database.connection.execute(SHIFT)
        await database.connection.execute("vacuum noetl.timer")
        await database.connection.execute("select noetl.notify_timers(min(due_at)) from noetl.timer")
        first = "select extract(epoch from min(due_at) - clock_timestamp())::float8 from noetl.timer"
        await asyncio.sleep(max(await database.connection.fetchval(first), 0.0))
        began = time.perf_counter()
        while await database.connection.fetchval("select exists (select from noetl.timer)"):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)
        await database.until_read()
        return timers / (time.perf_counter() - began)


async def _beside_a_million(bench: Bench) -> list[Row]:
    """The time of the drain with a million timers and waits beside it, over that without, in interleaved pairs."""
    pairs, executions, timers = bench.scaled(20, 3), bench.scaled(300, 100), bench.scaled(1_000_000, 20_000)
    ratios, probes = [], []
    async with bench.database() as full, bench.database() as empty:
        for statement in FILL:
            await full.connection.execute(statement.replace("$1", str(timers)), timeout=None)
        for number in range(pairs):
            probes.append(await full.probe())
            order = (full, empty) if number % 2 else (empty, full)
            rates = {}
            for database in order:
                rates[database.dsn] = (await drained(database, executions, path=f"ten{number}")).rate
            ratios.append(rates[empty.dsn] / rates[full.dsn])
    error = TIMES_OF_95 * statistics.stdev(ratios) / sqrt(len(ratios))
    return [
        Row(figure="timers", what=f"time of the drain, {timers:,} timers and waits ÷ none", unit="×",
            values=tuple(ratios), bar=at_most(1.05), beside={"mean ±": error}, probes=tuple(probes))
    ]  # fmt: skip
