"""Each of the six roles does its work while its bucket is on one node, and after a move to another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from noetl_broker.store.connect.buckets import buckets_of
from tests.brokers import PATIENCE_SECONDS, rows, until_ended, value
from tests.citus.clusters import BUCKETS, Cluster
from tests.cli.conftest import Command
from tests.installations import register_everywhere, serving
from tests.postgres import Database
from tests.roles import login

pytestmark = pytest.mark.slow

BODY = """
workflow:
- {step: start, next: ask}
- {step: ask, type: approval, next: work}
- {step: work, type: noop, next: end}
- {step: end}
"""
NAMES = ("broker", "operator", "worker", "producer", "reader", "approver")


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """Commands, which name the database themselves."""
    command = Command(tmp_path, None)
    yield command
    command.close()


async def test_each_role_does_its_work(cluster: Cluster, command: Command) -> None:
    """Through the coordinator, with the rights that `migrate --roles` has granted."""
    await register_everywhere(cluster.installation, BODY, BUCKETS)
    async with AsyncExitStack() as stack:
        logins = {
            name: await stack.enter_async_context(login(cluster.installation, f"{name}_of", f"noetl_{name}"))
            for name in NAMES
        }

        async def call(role: str, *words: str) -> str:
            answer = await asyncio.to_thread(command, *words, "--dsn", logins[role].dsn)
            assert answer.exit_code == 0, (words, answer.stderr)
            return answer.stdout

        stack.callback(command.close)
        command.start("run", "--dsn", logins["broker"].dsn)
        command.start("worker", "--null", "--dsn", logins["worker"].dsn)
        for _ in cluster.nodes:
            started = (await call("producer", "start", "story")).strip()
            bucket = buckets_of(cluster.installation, BUCKETS)[int(started) % 64]
            await call("operator", "pause", started)
            await call("operator", "resume", started)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while started not in await call("approver", "approvals"):  # noqa: ASYNC110 - a process asks
                    await asyncio.sleep(0.2)
            await call("approver", "approve", started, "ask")
            await until_ended(bucket)
            assert "COMPLETED" in await call("reader", "executions")
            assert "COMPLETED" in await call("operator", "status", started)
            for one in buckets_of(cluster.installation, BUCKETS):
                here = await cluster.node_of(one.schema)
                await cluster.move(one.schema, next(node for node in cluster.nodes if node != here))


async def test_a_producer_inserts_a_start_in_a_transaction(cluster: Cluster) -> None:
    """At the coordinator. It has no say in the id and the time of the event."""
    await register_everywhere(cluster.installation, BODY, BUCKETS)
    async with login(cluster.installation, "producer_of", "noetl_producer") as producer:
        connection = await asyncpg.connect(producer.dsn)
        async with connection.transaction():
            for columns, values in (("", ""), ("event_id, created_at, ", "5, '2001-02-03', ")):
                await connection.execute(
                    f"""insert into noetl_1.event ({columns}execution_id, event_type, context)
                    values ({values}noetl_1.next_id(), 'execution_start', '{{"path": "story"}}')"""
                )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("insert into noetl_1.event (execution_id, event_type) values (1, 'step_started')")
        await connection.close()
    bucket = buckets_of(cluster.installation, BUCKETS)[1]
    own = "select event_id <> 5 and created_at > now() - interval '1 hour' from noetl.event"
    assert await rows(bucket, own) == [(True,), (True,)]
    async with serving(cluster.installation, BUCKETS):
        await _until_waiting(bucket, 2)


async def test_an_idle_worker_listens_on_the_new_node(cluster: Cluster, command: Command) -> None:
    """Its calls would be passed on, but it would hear of no job."""
    bucket = buckets_of(cluster.installation, BUCKETS)[0]
    command.start("worker", "--null", "--dsn", cluster.installation.dsn)
    await _until_listening(cluster, bucket.schema)
    here = await cluster.node_of(bucket.schema)
    await cluster.move(bucket.schema, next(node for node in cluster.nodes if node != here))
    await _until_listening(cluster, bucket.schema)


async def _until_listening(cluster: Cluster, schema: str) -> None:
    """Wait until a worker listens on the node of a bucket."""
    text, name = "select from pg_stat_activity where application_name = $1", f"noetl-broker worker listener {schema}"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await cluster.fetch(text, name, at=await cluster.node_of(schema)):  # noqa: ASYNC110 - a process does
            await asyncio.sleep(0.2)


async def _until_waiting(bucket: Database, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await value(bucket, "select count(*) from noetl.wait") < count:  # noqa: ASYNC110 - the broker does it
            await asyncio.sleep(0.05)
