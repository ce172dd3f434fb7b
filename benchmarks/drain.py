"""The drain: one statement completes all jobs of 2,000 executions, then the daemon decides on all of them.

A round is one database with all ten steps. A daemon with one process, one with two, and the ideal batch on one
connection (ideal.py) take turns. The time runs from the commit of the statement until the inbox is empty, so
notifications count.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

from benchmarks import ideal
from benchmarks.bench import Bench, Database
from benchmarks.playbooks import RESULT, STEPS, chain
from benchmarks.results import Probe, Row, at_least, ratios
from benchmarks.throttle import Throttle
from noetl_broker.store.connect.connection import HOT_PATH, connect

FAST_DISK_MS: Final = 0.2
BATCH: Final = 200  # mails that one commit reads at most
COMPLETE: Final = """
    with leased as materialized (select queue_id, attempts from noetl.lease_jobs('worker', 1000000, 600))
    select count(noetl.complete_job(queue_id, 'worker', attempts, $1)) from leased"""


class Drained(NamedTuple):
    """Turns a second, and processor microseconds a turn, of the daemon and of the server."""

    rate: float
    daemon: float
    server: float


async def measure(bench: Bench) -> list[Row]:
    """Measure one process, two processes, and the ratio of each to the ideal."""
    executions = bench.scaled(2_000, 500)
    ones, twos, ideals, probes = [], [], [], []
    for _ in range(3):
        async with bench.database() as database:
            probes.append(await database.probe())
            ones.append(await drained(database, executions, processes=1))
        async with bench.database() as database:
            twos.append(await drained(database, executions, processes=2))
        async with bench.database() as database:
            ideals.append(await _ideal(database, executions))
    return _rows(ones, twos, ideals, tuple(probes))


def _rows(ones: list[Drained], twos: list[Drained], ideals: list[float], probes: tuple[Probe, ...]) -> list[Row]:
    fast = sorted(probe.fdatasync for probe in probes)[len(probes) // 2] <= FAST_DISK_MS
    rows = [
        Row(figure="drain", what="ideal batch, one connection", unit="/s", values=tuple(ideals), probes=probes),
    ]
    for what, drains, bar, share in (
        ("one process", ones, None, 0.55),
        ("two processes", twos, at_least(20_000) if fast else None, 0.7),
    ):
        rates = tuple(one.rate for one in drains)
        middle = sorted(drains)[len(drains) // 2]
        beside = {"daemon µs/turn": middle.daemon, "server µs/turn": middle.server}
        rows += [
            Row(figure="drain", what=what, unit="/s", values=rates, bar=bar, beside=beside, probes=probes),
            Row(figure="drain", what=f"{what} ÷ ideal", unit="×", values=ratios(rates, ideals), bar=at_least(share),
                probes=probes),
        ]  # fmt: skip
    return rows


async def drained(
    database: Database,
    executions: int,
    *,
    processes: int = 1,
    daemons: int = 1,
    share: float | None = None,
    path: str = "ten",
    break_executions: Callable[[list[int]], Awaitable[int]] | None = None,
) -> Drained:
    """Run one round with default daemons; raises RuntimeError if anything was lost.

    `share`: of a core, for each process.
    `break_executions`: gets the ids of the started executions, makes some of them undecidable, and returns how many.
    """
    await database.register(path, chain(path))
    bench = database.bench
    async with AsyncExitStack() as stack:
        log = subprocess.DEVNULL if break_executions else None  # broken executions would fill the log
        running = [
            await stack.enter_async_context(database.daemon(processes=processes, log=log)) for _ in range(daemons)
        ]
        throttle = None
        if share is not None:
            process_ids = [process_id for daemon in running for process_id in daemon.process_ids()]
            throttle = await stack.enter_async_context(Throttle(share, process_ids))
        started = await database.start(path, many=executions)
        await database.until_read()
        broken = await break_executions(started) if break_executions else 0
        own_pid = database.connection.get_server_pid()
        taken = 0.0
        own_before, server_before = sum(daemon.seconds() for daemon in running), bench.server_seconds(but=own_pid)
        for step in range(STEPS):
            completed = await complete(database)
            began = time.perf_counter()
            await database.until_read(commits=completed // BATCH)
            if throttle is not None:
                await throttle.settled()
            taken += time.perf_counter() - began
            if completed != executions - (broken if step else 0):
                raise RuntimeError(f"{completed} jobs were there, of {executions} executions with {broken} broken")
        own = sum(daemon.seconds() for daemon in running) - own_before
        server = bench.server_seconds(but=own_pid) - server_before
        ended = await database.connection.fetchval(
            "select count(*) from noetl.execution where status = 'COMPLETED' and path = $1", path
        )
    if ended != executions - broken:
        raise RuntimeError(f"{ended} executions are completed, not {executions - broken}")
    turns = (executions - broken) * STEPS
    return Drained(turns / taken, own / turns * 1e6, server / turns * 1e6)


async def complete(database: Database) -> int:
    """Complete all jobs with one statement; return their number."""
    return int(await database.connection.fetchval(COMPLETE, RESULT))


async def _ideal(database: Database, executions: int) -> float:
    """Drain all steps except the last, which would end the executions: each turn writes the same rows."""
    await database.register("ten", chain("ten"))
    async with database.daemon():
        await database.start("ten", many=executions)
        await database.until_read()
    connection = await connect(database.target, name="ideal")
    try:
        # As in the broker: its events are no mail, and plans use indexes.
        await connection.execute("set noetl.writer = 'broker'")
        for name, value in HOT_PATH.items():
            await connection.execute(f"set {name} = {value}")
        taken = 0.0
        for step in range(1, STEPS):
            await complete(database)
            taken += await ideal.drain(connection, step)
    finally:
        await connection.close()
    jobs = await database.connection.fetchval("select count(*) from noetl.queue where node_name = $1", f"s{STEPS}")
    if jobs != executions:
        raise RuntimeError(f"the ideal left {jobs} executions at the last step, not {executions}")
    return executions * (STEPS - 1) / taken
