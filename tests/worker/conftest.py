"""Fixtures of the worker's tests: shared objects of jobs, and a local web server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from noetl_broker.worker.environment import visible_environment
from noetl_broker.worker.errors import Failure
from noetl_broker.worker.executor import Success, execute
from noetl_broker.worker.idle_connections import IdleConnections
from noetl_broker.worker.tools.http_connections import HttpConnections
from noetl_broker.worker.tools.python_processes import Interpreters
from noetl_broker.worker.tools.task import WorkerResources
from tests.worker.alone import STATUS, leased
from tests.worker.servers import listening

Outcome = Any
Perform = Callable[..., Awaitable[Outcome]]
needs_proc = pytest.mark.skipif(not STATUS.exists(), reason="the peak of a process is read from /proc")


@pytest.fixture
async def shared() -> AsyncIterator[WorkerResources]:
    """Interpreters and an environment, without a database."""
    environment = dict(os.environ) | {"NOETL_SECRET_API_TOKEN": "s3cret", "CITY": "Oslo", "PGPASSWORD": "hidden"}
    interpreters = Interpreters(visible_environment(environment))
    resources = WorkerResources(
        dsn="postgresql://127.0.0.1:1/none",
        environment=environment,
        interpreters=interpreters,
        sql_connections=IdleConnections(most=8),
        http_connections=HttpConnections(IdleConnections(most=8)),
    )
    yield resources
    await resources.close_connections()
    await interpreters.close()


@pytest.fixture
def perform(shared: WorkerResources) -> Perform:
    """Run one action as a job and give its result, or its Failure."""

    async def run(
        action: dict[str, Any],
        *,
        context: dict[str, Any] | None = None,
        limit: float = 20.0,
        using: WorkerResources = shared,
    ) -> Outcome:
        outcome = await execute(leased(action, context), using, time_limit_seconds=limit)
        return json.loads(outcome.result) if isinstance(outcome, Success) else outcome

    return run


def failed(outcome: Outcome) -> dict[str, Any]:
    """Give the error of a failed job."""
    assert isinstance(outcome, Failure), outcome
    return outcome.error


class Site:
    """A small web server: records its requests, and sends the configured answers."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer: tuple[int, dict[str, str], bytes] = (200, {"content-type": "application/json"}, b'{"ok": true}')
        self.answers: list[tuple[int, dict[str, str], bytes]] = []  # the first ones, before `answer`
        self.answers_by_target: dict[str, tuple[int, dict[str, str], bytes]] = {}  # in place of `answer`
        self.pause_seconds = 0.0  # before each answer
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _ = head[0].split(" ")
        self.requests.append({"method": method, "target": target, "headers": headers, "body": body.decode()})
        await asyncio.sleep(self.pause_seconds)
        usual = self.answers_by_target.get(target, self.answer)
        status, fields, content = self.answers.pop(0) if self.answers else usual
        lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in fields.items())]
        writer.write(
            "\r\n".join([*lines, f"content-length: {len(content)}", "connection: close", "", ""]).encode() + content
        )
        await writer.drain()


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Site]:
    """Run a web server."""
    own = Site()
    async with listening(own.serve) as port:
        own.url = f"http://127.0.0.1:{port}"
        yield own


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """Run a web server."""
    async with serving() as own:
        yield own


@pytest.fixture
async def other() -> AsyncIterator[Site]:
    """Run a second one."""
    async with serving() as own:
        yield own
