"""From the commit of `action_completed` to the moment when the next job can be seen."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Self

from benchmarks.bench import Bench, Connection, Database
from benchmarks.playbooks import RESULT, chain
from benchmarks.results import Row, at_most, percentile
from noetl_broker.store.pool import connect

BEAT_SECONDS: Final = 0.01
COMPLETE: Final = """
    with leased as materialized (select queue_id, attempts from noetl.lease_jobs($1, $2, 60, array[$3]))
    select count(noetl.complete_job(queue_id, $1, attempts, $4)) from leased"""


async def measure(bench: Bench) -> list[Row]:
    """One execution at a time: each round gives its own percentiles."""
    halves, tails, probes = [], [], []
    async with bench.database() as database, database.daemon():
        await database.register("probe", chain("probe", kind="http"))
        async with Watch.on(database, alone=True) as watch:
            await watch.spans(2)
            for _ in range(bench.rounds):
                probes.append(await database.probe())
                spans = await watch.spans(bench.scaled(100, 15))
                halves.append(percentile(spans, 0.5) - probes[-1].commit)
                tails.append(percentile(spans, 0.99) - probes[-1].commit)
    return [
        Row(figure="latency", what="p50 less one commit", unit="ms", values=tuple(halves), bar=at_most(1.5),
            probes=tuple(probes)),
        Row(figure="latency", what="p99 less one commit", unit="ms", values=tuple(tails), bar=at_most(8),
            probes=tuple(probes)),
    ]  # fmt: skip


async def measure_loaded(bench: Bench) -> list[Row]:
    """The same beside 1,000 transitions a second; the pace that was really held stands beside."""
    halves, tails, paces, probes = [], [], [], []
    async with bench.database() as database, database.daemon():
        await database.register("probe", chain("probe", kind="http"))
        await database.register("load", chain("load"))
        async with Watch.on(database) as watch, Load.on(database, per_second=1000) as load:
            await watch.spans(2)
            for _ in range(bench.rounds):
                probes.append(await database.probe())
                began, before = time.perf_counter(), load.completed
                spans = await watch.spans(bench.scaled(60, 15))
                paces.append((load.completed - before) / (time.perf_counter() - began))
                halves.append(percentile(spans, 0.5))
                tails.append(percentile(spans, 0.99))
    pace = percentile(paces, 0.5)
    return [
        Row(figure="latency under load", what="p50", unit="ms", values=tuple(halves), beside={"per second": pace},
            probes=tuple(probes)),
        Row(figure="latency under load", what="p99", unit="ms", values=tuple(tails), bar=at_most(20),
            beside={"per second": pace}, probes=tuple(probes)),
    ]  # fmt: skip


@dataclass(slots=True)
class Watch:
    """A worker that does one job at a time and looks at the clock: it hears of a job as every worker does."""

    database: Database
    connection: Connection
    rung: asyncio.Event
    alone: bool  # nobody else's jobs ring: what a ring tells of is ours, and can be seen from the ring on
    rung_at: float = 0.0

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, database: Database, *, alone: bool = False) -> AsyncIterator[Self]:
        """Listen for jobs."""
        connection = await connect(database.dsn, name="watch")
        watch = cls(database, connection, asyncio.Event(), alone)
        await connection.add_listener("noetl_job", watch._hear)
        try:
            yield watch
        finally:
            await connection.close()

    def _hear(self, *_: object) -> None:
        self.rung_at = time.perf_counter()
        self.rung.set()

    async def spans(self, executions: int, *, path: str = "probe", counting: bool = False) -> list[float]:
        """Milliseconds from each answer's commit to the next job; `counting`: the n-th answer says n."""
        spans = []
        for _ in range(executions):
            execution_id = (await self.database.start(path))[0]
            committed, answers = None, 0
            while (
                found := await self._next(
                    execution_id, _node(execution_id, answers + 1, looping=counting), answered=committed is not None
                )
            ) is not None:
                job, seen_at = found
                if committed is not None:
                    spans.append((seen_at - committed) * 1000)
                await self.connection.fetchval("select queue_id from noetl.lease_jobs('watch', 1, 60, array['http'])")
                answers += 1
                result = RESULT | {"n": answers} if counting else RESULT
                self.rung.clear()  # what rang before is no answer to this
                await self.connection.fetchval("select noetl.complete_job($1, 'watch', 1, $2)", job, result)
                committed = time.perf_counter()
        if not spans:
            raise RuntimeError(f"no job of {path} followed another")
        return spans

    async def _next(self, execution_id: int, node: str, *, answered: bool) -> tuple[int, float] | None:
        """The next job and when it could be seen; None at the end of the execution.

        Who is alone and has answered waits for the ring that comes of it: a look before that would take a processor
        from the daemon. The job is found by its key whatever the planner thinks: a look through all that is queued
        would walk over all that ever was while somebody holds an old snapshot, one through all that the execution had
        grows with its history, and we would measure ourselves.
        """
        woken_at, waits = None, self.alone and answered
        while True:
            if waits:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.rung.wait(), 0.05)
                woken_at = self.rung_at if self.alone and self.rung.is_set() else None
            waits = True
            self.rung.clear()
            (found,) = await self.connection.fetch(
                "select x.status, q.queue_id from noetl.execution x left join noetl.queue q on"
                " q.execution_id = x.execution_id and q.node_id = $2 where x.execution_id = $1", execution_id, node,
            )  # fmt: skip
            if found["queue_id"] is not None:
                return found["queue_id"], woken_at or time.perf_counter()
            if found["status"] != "RUNNING":
                return None


def _node(execution_id: int, number: int, *, looping: bool) -> str:
    """The node of the job with this number: of a visit of the loop, or of a step of the chain."""
    if looping:
        return f"{execution_id}:again" if number == 1 else f"{execution_id}:again#{number}"
    return f"{execution_id}:s{number}"


@dataclass(slots=True)
class Load:
    """Completes so many jobs of other executions a second, and starts new ones as they end."""

    database: Database
    connection: Connection
    per_second: int
    completed: int = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, database: Database, *, per_second: int) -> AsyncIterator[Self]:
        """Keep the pace until the block ends."""
        connection = await connect(database.dsn, name="load")
        load = cls(database, connection, per_second)
        await database.start("load", many=per_second // 2)
        await database.until_read()
        task = asyncio.create_task(load._run())
        try:
            yield load
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await connection.close()

    async def _run(self) -> None:
        beat = time.perf_counter()
        due = owed = 0.0
        while True:
            due += self.per_second * BEAT_SECONDS
            if due >= 1:
                self.completed += await self.connection.fetchval(COMPLETE, "load", int(due), "python", RESULT)
                due -= int(due)
            owed += self.per_second * BEAT_SECONDS / 10
            if owed >= 1:
                await self.connection.fetch(
                    "select noetl.start_execution('load', '{}') from generate_series(1, $1)", int(owed)
                )
                owed -= int(owed)
            beat += BEAT_SECONDS
            await asyncio.sleep(max(0.0, beat - time.perf_counter()))
