"""What one job costs: its worker's calls, the starts, the wait of a plain job, and its dead tuples."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from benchmarks import loops
from benchmarks.bench import Bench, Database
from benchmarks.cost import DEAD
from benchmarks.functions import FUNCTION_WORKER
from benchmarks.playbooks import one_step
from benchmarks.results import Row, at_least, at_most, percentile
from noetl_broker import Client

ROUNDS: Final = 3
RATES: Final = (10, 150)  # plain jobs a second
CONCURRENCY: Final = "8"
LIVE: Final = "select exists (select from noetl.execution x where noetl.is_live(x.status))"
WAITED: Final = "select x.result::text::float8 as ms from noetl.execution x where x.execution_id = any($1::bigint[])"


async def measure(bench: Bench) -> list[Row]:
    """Measure jobs one by one."""
    return [*await loops.measure(bench), await _starts(bench), *await _plain_jobs(bench), await _dead(bench)]


async def _starts(bench: Bench) -> Row:
    """Starts a second by one call, over those one by one."""
    count = bench.scaled(2_000, 200)
    ratios, many, probes = [], [], []
    for _ in range(ROUNDS):
        async with bench.database() as database, Client(database.dsn) as client:
            probes.append(await database.probe())
            await database.register("plain", one_step("trivial"))
            await client.start("plain", {"n": 0})
            began = time.perf_counter()
            for number in range(count):
                await client.start("plain", {"n": number})
            singly = time.perf_counter() - began
            began = time.perf_counter()
            await client.start_many("plain", [{"n": number} for number in range(count)])
            together = time.perf_counter() - began
            ratios.append(singly / together)
            many.append(count / together)
            started = await database.connection.fetchval("select count(*) from noetl.execution")
            if started != 2 * count + 1:
                raise RuntimeError(f"{started} executions are there, not {2 * count + 1}")
    return Row(figure="jobs", what="starts, start_many ÷ one by one", unit="×", values=tuple(ratios), bar=at_least(10),
               beside={"start_many /s": percentile(many, 0.5)}, probes=tuple(probes))  # fmt: skip


async def _plain_jobs(bench: Bench) -> list[Row]:
    """From the call that starts an execution until the function of its only job begins."""
    rows = []
    for rate in RATES:
        halves, tails, probes = [], [], []
        async with bench.database() as database, Client(database.dsn) as client:
            await database.register("plain", one_step("timed"))
            async with database.daemon(), database.worker(FUNCTION_WORKER, CONCURRENCY):
                await _waited(database, client, rate, 10)  # warm-up
                for _ in range(bench.rounds):
                    probes.append(await database.probe())
                    waited = await _waited(database, client, rate, rate * bench.scaled(10, 2))
                    halves.append(percentile(waited, 0.5))
                    tails.append(percentile(waited, 0.99))
        rows.append(
            Row(figure="jobs", what=f"a plain job's wait, {rate} a second, p50", unit="ms", values=tuple(halves),
                bar=at_most(4), beside={"p99": percentile(tails, 0.5)}, probes=tuple(probes))
        )  # fmt: skip
    return rows


async def _waited(database: Database, client: Client, rate: int, count: int) -> list[float]:
    """Start executions at a rate; return how many milliseconds each job waited."""
    ids, beat = [], time.perf_counter()
    for _ in range(count):
        ids.append(await client.start("plain", {"sent": time.perf_counter()}))
        beat += 1 / rate
        await asyncio.sleep(max(0.0, beat - time.perf_counter()))
    while await database.connection.fetchval(LIVE):  # noqa: ASYNC110 - in the database
        await asyncio.sleep(0.05)
    found = [float(row["ms"]) for row in await database.connection.fetch(WAITED, ids)]
    if len(found) != count:
        raise RuntimeError(f"{len(found)} of {count} executions have a result")
    return found


async def _dead(bench: Bench) -> Row:
    """Row versions that an execution of one job leaves behind, by the server's counters."""
    executions = bench.scaled(1_000, 100)
    values = []
    for _ in range(ROUNDS):
        async with bench.database() as database:
            await database.register("plain", one_step("trivial"))
            async with database.daemon(), database.worker(FUNCTION_WORKER, CONCURRENCY):
                await _waited_for(database, executions)
            # A backend reports its counts at its end at the latest; the daemon and the worker have ended.
            dead = (await database.connection.fetch(DEAD))[0]["dead"]
            values.append(round(dead / executions, 1))  # a few are of the broker's own rows
    return Row(figure="jobs", what="dead tuples of an execution", unit="", values=tuple(values), bar=at_most(5))


async def _waited_for(database: Database, executions: int) -> None:
    for _ in range(executions):  # one by one, as an application starts them
        await database.start("plain")
    while await database.connection.fetchval(LIVE):  # noqa: ASYNC110 - in the database
        await asyncio.sleep(0.05)
    await database.all_completed(executions)
