"""Each of the six roles does its work while its bucket is on one node, and after a move to another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from noetl_broker.store.connect.buckets import buckets_of
from tests.brokers import PATIENCE_SECONDS, until_ended
from tests.citus.clusters import BUCKETS, Cluster
from tests.cli.conftest import Command
from tests.installations import register_everywhere
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
