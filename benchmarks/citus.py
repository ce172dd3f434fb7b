"""A bucket on a node of Citus beside a plain schema of a database on the same server: turns, leases and ends of jobs.

It needs a cluster of Citus on this machine, because the server's processor time is read from its processes. Both take
turns: plain, bucket, bucket, plain.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg

from benchmarks.bench import Bench, Connection, Database
from benchmarks.buckets import BATCH, COMPLETE, END, LEASE, MAILS, START, WARM_UP, register_ten, until_read
from benchmarks.playbooks import RESULT, STEPS
from benchmarks.processes import tree_seconds
from benchmarks.results import Row, at_most, percentile
from noetl_broker.store.connect import dsn as store
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.connect.installation import migrate
from tests.citus.clusters import VARIABLE, Cluster, installed

ROUNDS: Final = 5
PASSES: Final = 6  # of MAILS executions, one after the other, in a run
JOBS: Final = 100  # of one place, before those of the other
FASTEST: Final = 0.1  # this share of the calls: the others wait for a disk that is shared


class Place(NamedTuple):
    """A database to measure in; `session` is ours, in the schema at the node."""

    database: Database
    schema: str
    session: Connection


async def measure(bench: Bench) -> list[Row]:
    """Measure turns and jobs; nothing without a cluster."""
    dsn = os.environ.get(VARIABLE)
    if not dsn:
        print(f"citus: not measured, set {VARIABLE} to the DSN of a database on the coordinator of a cluster")
        return []
    async with installed(dsn) as cluster, _plain(bench, cluster) as plain:
        target = cluster.installation.bucket(0)
        bucket = _place(bench, cluster.installation, await connect(target, name="benchmark"))
        for place in (plain, bucket):
            await register_ten(place.session)
        rows = [*await _turns(bench, plain, bucket), *await _jobs(bench, cluster, plain, bucket)]
        await bucket.session.close()
    return rows


def _place(bench: Bench, target: store.Database, session: Connection) -> Place:
    return Place(Database(bench=bench, dsn=target.dsn or "", connection=session), target.schema, session)


@asynccontextmanager
async def _plain(bench: Bench, cluster: Cluster) -> AsyncIterator[Place]:
    """A database without Citus on the node of the first bucket, with one schema."""
    node, name = await cluster.node_of("noetl_0"), f"{cluster.installation.name}_plain"
    maintenance = await asyncpg.connect(cluster.dsn(node))
    await maintenance.execute(f"create database {name}")
    try:
        target = store.Database(dsn=cluster.dsn(node).replace(cluster.installation.name, name))
        await migrate(target)
        session = await connect(target, name="benchmark")
        yield _place(bench, target, session)
        await session.close()
    finally:
        await maintenance.execute(f"drop database {name} with (force)")
        await maintenance.close()


async def _turns(bench: Bench, plain: Place, bucket: Place) -> list[Row]:
    """Processor time of a turn with the end of its job: of the server of the node, and of the daemon."""
    ratios: dict[str, list[float]] = {"server": [], "daemon": []}
    micros: dict[str, list[float]] = {"server": [], "daemon": []}
    for _ in range(bench.scaled(ROUNDS, 1)):
        runs = [await _turn(bench, place) for place in (plain, bucket, bucket, plain)]
        for which, found in ratios.items():
            found.append((runs[1][which] + runs[2][which]) / (runs[0][which] + runs[3][which]))
            micros[which].append(runs[0][which])
    return [
        Row(figure="citus", what=f"{which}, a turn, bucket on a node ÷ plain", unit="×", values=tuple(values),
            bar=at_most(1.15), beside={"plain µs": statistics.median(micros[which])})
        for which, values in ratios.items()
    ]  # fmt: skip


async def _turn(bench: Bench, place: Place) -> dict[str, float]:
    """Return the processor microseconds of a turn."""
    mails, passes, session = bench.scaled(MAILS, BATCH), bench.scaled(PASSES, 1), place.session
    server = _server(session)
    spent = dict.fromkeys(("server", "daemon"), 0.0)
    async with place.database.daemon(batch_size=str(BATCH), schema=place.schema) as daemon:
        for _ in range(passes):
            await session.execute(START, mails)
            await until_read([session])
            for step in range(STEPS):
                before = server(), daemon.seconds()
                completed = await session.fetchval(COMPLETE, mails, RESULT)
                if completed != mails:
                    raise RuntimeError(f"{completed} jobs were there, not {mails}")
                await until_read([session])
                if step >= WARM_UP:
                    spent["server"] += server() - before[0]
                    spent["daemon"] += daemon.seconds() - before[1]
    return {which: seconds / (mails * passes * (STEPS - WARM_UP)) * 1e6 for which, seconds in spent.items()}


def _server(session: Connection) -> Callable[[], float]:
    """The processor seconds of the server of a session, without the polls of the session itself."""
    pid = session.get_server_pid()
    postmaster = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return lambda: tree_seconds(postmaster, but=pid)


async def _jobs(bench: Bench, cluster: Cluster, plain: Place, bucket: Place) -> list[Row]:
    """Lease and end of a job by the clock: at the node, and through the coordinator."""
    count = bench.scaled(2_000, 400)
    for place in (plain, bucket):
        async with place.database.daemon(schema=place.schema):
            await place.session.execute(START, count * 2)
            await until_read([place.session])
    coordinator = await asyncpg.connect(cluster.installation.dsn)
    await coordinator.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    of_bucket = (LEASE.replace("noetl.", "noetl_0."), END.replace("noetl.", "noetl_0."))
    places = {
        "plain": (plain.session, LEASE, END),
        "at the node": (bucket.session, LEASE, END),
        "through the coordinator": (coordinator, *of_bucket),
    }
    for where in places.values():
        await _lease_and_end(where, JOBS // 2)  # until each session has its plans
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in places}
    rounds = count // (4 * JOBS)
    for _ in range(rounds):
        for name in (*places, *reversed(places)):
            times[name].append(await _lease_and_end(places[name], JOBS))
    await coordinator.close()
    rows = []
    for name, bar in (("at the node", 1.4), ("through the coordinator", 2.0)):
        for which, what in enumerate(("lease", "end")):
            ratios = tuple(one[which] / other[which] for one, other in zip(times[name], times["plain"], strict=True))
            beside = {"plain ms": statistics.median(one[which] for one in times["plain"]) * 1000}
            rows.append(Row(figure="citus", what=f"{what} of a job {name} ÷ plain", unit="×", values=ratios,
                            bar=at_most(bar), beside=beside))  # fmt: skip
    return rows


async def _lease_and_end(place: tuple[Connection, str, str], count: int) -> tuple[float, float]:
    """Return the seconds of a lease and of an end, among the fastest tenth."""
    session, lease, end = place
    leases, ends = [], []
    for _ in range(count):
        began = time.perf_counter()
        [job] = await session.fetch(lease)
        leased = time.perf_counter()
        await session.fetchval(end, job["queue_id"], job["attempts"], RESULT)
        leases.append(leased - began)
        ends.append(time.perf_counter() - leased)
    return percentile(leases, FASTEST), percentile(ends, FASTEST)
