"""What the calls of a worker in a loop cost the server, beside two commits that do nothing else.

One session, no broker beside it. Blocks of ten jobs, in random order: a lease and a completion by two calls, by
`complete_and_lease`, by the same again, and two commits of one row. The processor time of the session's backend counts;
of each, the mean of the fastest tenth of its blocks. So what else the machine does falls out, and so does its pace.
"""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING, Any, Final

from benchmarks.playbooks import one_step
from benchmarks.processes import running_seconds
from benchmarks.results import Row, at_most, percentile, ratios

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.bench import Bench, Connection
    from benchmarks.results import Probe

ROUNDS: Final = 3
BLOCK: Final = 10  # jobs, or pairs of commits
WARM: Final = 3  # blocks of each kind, in which plans are made
LEASE: Final = "select queue_id, attempts from noetl.lease_jobs('one')"
COMPLETE: Final = "select noetl.complete_job($1, 'one', $2, '1')"
BOTH: Final = "select yours, queue_id, attempts from noetl.complete_and_lease($1, 'one', $2, '1')"
EMPTY: Final = "insert into public.empty values (1)"
KINDS: Final = ("two calls", "one call", "one call again", "two empty commits")


async def measure(bench: Bench) -> list[Row]:
    """Measure the loop by two calls and by one, as multiples of two empty commits of the same round."""
    found = [await _round(bench) for _ in range(ROUNDS)]
    probes = tuple(probe for probe, _ in found)
    costs = {kind: [cost[kind] for _, cost in found] for kind in KINDS}
    two, one, again, floor = (costs[kind] for kind in KINDS)
    return [
        Row(figure="jobs", what="a lease and a completion by two calls ÷ two empty commits", unit="×",
            values=ratios(two, floor), beside={"ms": percentile(two, 0.5)}, probes=probes),
        Row(figure="jobs", what="by complete_and_lease ÷ two empty commits", unit="×", values=ratios(one, floor),
            bar=at_most(1.7), beside={"ms": percentile(one, 0.5)}, probes=probes),
        Row(figure="jobs", what="complete_and_lease ÷ the same again", unit="×", values=ratios(one, again)),
    ]  # fmt: skip


async def _round(bench: Bench) -> tuple[Probe, dict[str, float]]:
    """Return the speed of the machine, and the milliseconds of a job of each kind."""
    blocks = bench.scaled(150, 10)
    jobs = BLOCK * (blocks + WARM) * 3
    async with bench.database() as database:
        probe = await database.probe()
        await database.connection.execute("create table public.empty (n int)")
        async with database.daemon():
            await database.register("plain", one_step("trivial"))
            await database.start("plain", many=jobs + 1)
            await database.until_read()
        own = await bench.on(database.dsn)
        loop = Loop(own.connection)
        await loop.begin()
        for _ in range(WARM):
            for kind in KINDS:
                await loop.block(kind)
        order = [kind for kind in KINDS for _ in range(blocks)]
        random.Random(1).shuffle(order)  # noqa: S311 - an order, no secret
        costs: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for kind in order:
            costs[kind].append(await loop.block(kind))
        await loop.end()
        await own.connection.close()
        async with database.daemon():
            await database.all_completed(jobs + 1)
    fastest = {kind: sorted(cost)[: max(1, blocks // 10)] for kind, cost in costs.items()}
    return probe, {kind: statistics.mean(cost) for kind, cost in fastest.items()}


class Loop:
    """A session that does jobs one by one; it always holds one leased job."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self.connection = connection
        self.job: Any = None
        calls: tuple[Callable[[], Awaitable[None]], ...] = (
            self._two_calls, self._one_call, self._one_call, self._two_commits
        )  # fmt: skip
        self.calls = dict(zip(KINDS, calls, strict=True))

    async def begin(self) -> None:
        """Lease the first job."""
        self.job = await self.connection.fetchrow(LEASE)

    async def end(self) -> None:
        """Complete the last job."""
        await self.connection.fetchval(COMPLETE, self.job["queue_id"], self.job["attempts"])

    async def block(self, kind: str) -> float:
        """Do some jobs in one way; return the milliseconds of one, of the server's process."""
        process_id, call = self.connection.get_server_pid(), self.calls[kind]
        began = running_seconds(process_id)
        for _ in range(BLOCK):
            await call()
        return (running_seconds(process_id) - began) / BLOCK * 1000

    async def _two_calls(self) -> None:
        job = await self.connection.fetchrow(LEASE)
        if not await self.connection.fetchval(COMPLETE, self.job["queue_id"], self.job["attempts"]) or job is None:
            raise RuntimeError("a job is missing")
        self.job = job

    async def _one_call(self) -> None:
        job = await self.connection.fetchrow(BOTH, self.job["queue_id"], self.job["attempts"])
        if job is None or not job["yours"] or job["queue_id"] is None:
            raise RuntimeError("a job is missing")
        self.job = job

    async def _two_commits(self) -> None:
        await self.connection.fetch(EMPTY)
        await self.connection.fetch(EMPTY)
