"""Buckets on nodes of Citus while they are moved: nothing that was acknowledged is lost, and order is kept."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from noetl_broker.store.connect.buckets import buckets_of
from tests.brokers import PATIENCE_SECONDS, broken_invariants, execute, register, rows, start, until_ended, value
from tests.citus.clusters import BUCKETS, Cluster
from tests.installations import register_everywhere, serving
from tests.postgres import Database
from tests.processes import Process, start_command
from tests.roles import login

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

STARTS = 3000
PRODUCERS = 3
STORY = """
workflow:
- {step: start, next: a}
- {step: a, type: noop, next: b}
- {step: b, type: noop, next: end}
- {step: end}
"""
WAITS = """
workflow:
- {step: start, next: one}
- {step: one, type: wait, signal: told, key: 'k', since: 1h, next: two}
- {step: two, type: wait, signal: told, key: 'k', since: 1h, next: end}
- {step: end, result: '{{ [one, two] }}'}
"""
ONE_AT_A_TIME = "concurrency: {limit: 1, per_bucket: true}"
LINE = """
workflow:
- {step: start, next: one}
- {step: one, type: wait, signal: go, key: '{{ workload.key }}', since: 1h, next: end}
- {step: end}
"""


class Load:
    """Producers at the coordinator. Each start that fails is repeated with its idempotency key until it succeeds."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.acknowledged: dict[str, int] = {}
        self.longest = 0.0
        self.errors: Counter[str] = Counter()
        self._numbers = itertools.count()
        self.moved = False

    async def produce(self) -> None:
        """Start executions until there are STARTS, and all moves are done."""
        connection: asyncpg.Connection[asyncpg.Record] | None = None
        while (number := next(self._numbers)) < STARTS or not self.moved:
            key, began = f"key-{number}", time.monotonic()
            while key not in self.acknowledged:
                try:
                    if connection is None or connection.is_closed():
                        connection = await asyncpg.connect(self._dsn)
                    text = "select noetl.start_execution('story', idempotency_key => $1)"
                    self.acknowledged[key] = await asyncio.wait_for(connection.fetchval(text, key), 20)
                except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                    if str(getattr(error, "sqlstate", "")).startswith("NB4"):
                        raise
                    self.errors[str(error).partition("\n")[0]] += 1
                    await asyncio.sleep(0.05)
            self.longest = max(self.longest, time.monotonic() - began)
        if connection is not None:
            await connection.close()


@asynccontextmanager
async def killed_now_and_then(dsn: str, folder: Path, *command: str) -> AsyncIterator[list[int]]:
    """Run a command, kill -9 it at random moments and start it again; yields a list of the kills."""
    kills: list[int] = []
    env = {"NOETL_BROKER_DSN": dsn, "NOETL_BROKER_HEALTH_PORT": "0", "PATH": "/usr/bin:/bin"}

    def begin() -> Process:
        with (folder / f"{command[0]}-{len(kills)}.log").open("w") as out:
            return start_command(command, cwd=folder, env=env, stdout=out.fileno(), stderr=out.fileno())

    async def keep_killing() -> None:
        while True:
            await asyncio.sleep(random.uniform(3, 8))
            running[-1].kill()
            running[-1].wait()
            kills.append(running[-1].pid)
            running.append(begin())

    running = [begin()]
    task = asyncio.create_task(keep_killing())
    try:
        yield kills
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        running[-1].terminate()
        running[-1].wait(PATIENCE_SECONDS)


async def test_no_acknowledged_start_is_lost_by_moves_and_kills(cluster: Cluster, tmp_path: Path) -> None:
    """3,000 starts through three moves, while all is killed; each has one execution, which ends."""
    await register_everywhere(cluster.installation, STORY, BUCKETS)
    servers = 0
    async with AsyncExitStack() as stack:
        broker, worker, producer = [
            await stack.enter_async_context(login(cluster.installation, f"{name}_of", f"noetl_{name}"))
            for name in ("broker", "worker", "producer")
        ]
        load = Load(producer.dsn)
        kills = await stack.enter_async_context(killed_now_and_then(broker.dsn, tmp_path, "run"))
        worker_kills = await stack.enter_async_context(killed_now_and_then(worker.dsn, tmp_path, "worker", "--null"))
        producing = [asyncio.create_task(load.produce()) for _ in range(PRODUCERS)]
        for _ in range(3):
            here = await cluster.node_of("noetl_0")
            await cluster.move("noetl_0", next(node for node in cluster.nodes if node != here))
            await cluster.kill_postgres(await cluster.node_of("noetl_0"))
            servers += 1
        load.moved = True
        await asyncio.gather(*producing)
        for bucket in buckets_of(cluster.installation, BUCKETS):
            await until_ended(bucket)
    assert len(load.acknowledged) >= STARTS
    assert kills
    found: dict[str, int] = {}
    for bucket in buckets_of(cluster.installation, BUCKETS):
        text = "select idempotency_key, execution_id from noetl.execution where status = 'COMPLETED'"
        own = await rows(bucket, text)
        assert not {key for key, _ in own} & {*found}
        found |= dict(own)
        assert await value(bucket, "select count(*) from noetl.inbox") == 0
        assert await value(bucket, "select count(*) from noetl.dead_letter") == 0
        assert await broken_invariants(bucket) == {}
    assert found == load.acknowledged
    print(f"{len(load.acknowledged)} starts, longest {load.longest:.1f} s, errors {dict(load.errors)}")
    print(f"kills of run {len(kills)}, worker {len(worker_kills)}, Postgres {servers}")


async def test_a_pause_is_resumed_on_a_node_of_a_lower_group(cluster: Cluster) -> None:
    """The number of the resume is higher than that of the pause."""
    low, bucket = cluster.nodes[0], await _in_high_group(cluster)
    await register_everywhere(cluster.installation, WAITS, BUCKETS)
    async with serving(cluster.installation, BUCKETS):
        [execution_id] = await start(bucket)
        await execute(bucket, "select noetl.pause_execution($1)", execution_id)
        await _until(bucket, "select status = 'PAUSED' from noetl.execution")
        await cluster.move(bucket.schema, low)
        await execute(bucket, "select noetl.resume_execution($1)", execution_id)
        await _until(bucket, "select status = 'RUNNING' from noetl.execution")


async def test_signals_keep_their_order_through_a_move(cluster: Cluster) -> None:
    """A signal that is sent after the move to a lower group is taken second."""
    low, bucket = cluster.nodes[0], await _in_high_group(cluster)
    await register_everywhere(cluster.installation, WAITS, BUCKETS)
    await execute(bucket, "select noetl.send_signal('told', 'k', '1')")
    async with serving(cluster.installation, BUCKETS):
        await cluster.move(bucket.schema, low)
        await execute(bucket, "select noetl.send_signal('told', 'k', '2')")
        await start(bucket)
        await until_ended(bucket)
    assert await rows(bucket, "select result from noetl.execution") == [([1, 2],)]


async def test_a_line_keeps_its_order_through_a_move(cluster: Cluster) -> None:
    """Who came after the move to a lower group is admitted last."""
    low, bucket = cluster.nodes[0], await _in_high_group(cluster)
    await register(bucket, LINE, metadata=ONE_AT_A_TIME)
    async with serving(cluster.installation, BUCKETS):
        ids = await start(bucket, payload={"key": "k"})
        await _until(bucket, "select count(*) = 1 from noetl.wait")
        ids += await start(bucket, payload={"key": "k"})
        await _until(bucket, "select count(*) = 1 from noetl.slot_claim where held_at is null")
        await cluster.move(bucket.schema, low)
        ids += await start(bucket, payload={"key": "k"})
        await _until(bucket, "select count(*) = 2 from noetl.slot_claim where held_at is null")
        for number in range(len(ids)):
            await execute(bucket, "select noetl.send_signal('go', 'k', $1)", number)
        await until_ended(bucket)
    assert await rows(bucket, "select execution_id from noetl.wait order by began_at") == [(one,) for one in ids]


async def test_a_node_that_is_added_takes_a_bucket(cluster: Cluster) -> None:
    """Functions, roles and sequences come with it."""
    bucket, _ = buckets_of(cluster.installation, BUCKETS)
    _, high = cluster.nodes[:2]
    await cluster.remove(high)
    await cluster.execute("select citus_add_node($1::text, $2::int)", *high)
    await cluster.execute("select replicate_reference_tables('block_writes')")
    await register_everywhere(cluster.installation, STORY.replace("noop", "wait, for: 1ms"), BUCKETS)
    await cluster.move(bucket.schema, high)
    async with serving(cluster.installation, BUCKETS):
        await start(bucket, count=5)
        await until_ended(bucket)
    assert await broken_invariants(bucket) == {}


async def _in_high_group(cluster: Cluster) -> Database:
    """Put the first bucket on the node of the higher group."""
    bucket, _ = buckets_of(cluster.installation, BUCKETS)
    if await cluster.node_of(bucket.schema) != cluster.nodes[1]:
        await cluster.move(bucket.schema, cluster.nodes[1])
    return bucket


async def _until(bucket: Database, text: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await value(bucket, text):  # noqa: ASYNC110 - another session changes it
            await asyncio.sleep(0.05)
