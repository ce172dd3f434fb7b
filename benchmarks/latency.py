"""The time from the commit of `action_completed` until the next job is visible."""

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
from noetl_broker.store.connect.connection import connect

BEAT_SECONDS: Final = 0.01
COMPLETE: Final = """
    with leased as materialized (select queue_id, attempts from noetl.lease_jobs($1, $2, 60, array[$3]))
    select count(noetl.complete_job(queue_id, $1, attempts, $4)) from leased"""


async def measure(bench: Bench) -> list[Row]:
    """Measure one execution at a time; each round has its percentiles."""
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
        Row(figure="latency", what="p50 less one commit", unit="ms", values=tuple(halves), bar=at_most(1),
            probes=tuple(probes)),
        Row(figure="latency", what="p99 less one commit", unit="ms", values=tuple(tails), bar=at_most(8),
            probes=tuple(probes)),
    ]  # fmt: skip


async def measure_loaded(bench: Bench) -> list[Row]:
    """Measure the same during 1,000 other transitions a second; `per second` is the measured rate."""
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
    """A worker that runs one job at a time and measures when it is notified of the next."""

    database: Database
    connection: Connection
    notified: asyncio.Event
    alone: bool  # no other jobs: a notification is of our job, which is visible from then on
    notified_at: float = 0.0

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, database: Database, *, alone: bool = False) -> AsyncIterator[Self]:
        """Listen for jobs."""
        connection = await connect(database.target, name="watch")
        watch = cls(database, connection, asyncio.Event(), alone)
        await connection.add_listener("noetl_job", watch._on_notify)
        try:
            yield watch
        finally:
            await connection.close()

    def _on_notify(self, *_: object) -> None:
        self.notified_at = time.perf_counter()
        self.notified.set()

    async def spans(self, executions: int, *, path: str = "probe", counting: bool = False) -> list[float]:
        """Return milliseconds from each answer's commit to the next job; `counting`: the n-th answer has n."""
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
                self.notified.clear()  # earlier notifications are of other jobs
                await self.connection.fetchval("select noetl.complete_job($1, 'watch', 1, $2)", job, result)
                committed = time.perf_counter()
        if not spans:
            raise RuntimeError(f"no job of {path} followed another")
        return spans

    async def _next(self, execution_id: int, node: str, *, answered: bool) -> tuple[int, float] | None:
        """Return the next job and when it was visible; None at the end of the execution.

        If `alone`, it waits for the notification after an answer, because a query would take processor time from the
        daemon. The query reads the job by its key: other queries slow down with an old snapshot or a long history, and
        would measure themselves.
        """
        seen_at, must_wait = None, self.alone and answered
        while True:
            if must_wait:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.notified.wait(), 0.05)
                seen_at = self.notified_at if self.alone and self.notified.is_set() else None
            must_wait = True
            self.notified.clear()
            (found,) = await self.connection.fetch(
                "select x.status, q.queue_id from noetl.execution x left join noetl.queue q on"
                " q.execution_id = x.execution_id and q.node_id = $2 where x.execution_id = $1", execution_id, node,
            )  # fmt: skip
            if found["queue_id"] is not None:
                return found["queue_id"], seen_at or time.perf_counter()
            if found["status"] != "RUNNING":
                return None


def _node(execution_id: int, number: int, *, looping: bool) -> str:
    """Return the node id of the n-th job: of a visit of the loop, or of a step of the chain."""
    if looping:
        return f"{execution_id}:again" if number == 1 else f"{execution_id}:again#{number}"
    return f"{execution_id}:s{number}"


@dataclass(slots=True)
class Load:
    """Completes `per_second` jobs of other executions, and starts new executions as they end."""

    database: Database
    connection: Connection
    per_second: int
    completed: int = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, database: Database, *, per_second: int) -> AsyncIterator[Self]:
        """Keep the rate until the block ends."""
        connection = await connect(database.target, name="load")
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
        due = starts_due = 0.0
        while True:
            due += self.per_second * BEAT_SECONDS
            if due >= 1:
                self.completed += await self.connection.fetchval(COMPLETE, "load", int(due), "python", RESULT)
                due -= int(due)
            starts_due += self.per_second * BEAT_SECONDS / 10
            if starts_due >= 1:
                await self.connection.fetch(
                    "select noetl.start_execution('load', '{}') from generate_series(1, $1)", int(starts_due)
                )
                starts_due -= int(starts_due)
            beat += BEAT_SECONDS
            await asyncio.sleep(max(0.0, beat - time.perf_counter()))
