"""How a worker fills its slots: which completions lease, and which answers travel together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from noetl_broker.tracing.spans import Span
from noetl_broker.worker import WorkerOptions, loop, reporter, run_worker
from noetl_broker.worker.tools.task import Task
from tests.chaos.silent_proxy import SilentProxy
from tests.postgres import SCHEMA, Database
from tests.worker.test_loop import NEVER_SECONDS, PATIENCE_SECONDS, Queue, queue

__all__ = ["queue"]
COMMITS = """
select q.queue_id, e.event_type, e.xmin::text
from noetl.event e join noetl.queue q on q.queue_id = (e.meta ->> 'queue_id')::bigint
where e.event_type in ('action_started', 'action_completed')
"""


class Gate:
    """A tool: a job named `first` ends at once, a job named `second` when the first has and `open` is set."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waits = asyncio.Event()
        self.passed = asyncio.Event()

    async def run(self, task: Task) -> str:
        """Run a job."""
        if task.name == "second":
            self.waits.set()
            await self.open.wait()
            await self.passed.wait()
        elif task.name == "first":
            self.passed.set()
        return task.name


@pytest.fixture
def gate() -> Gate:
    """The tool of this test's worker."""
    return Gate()


@contextlib.asynccontextmanager
async def working(dsn: str, gate: Gate, *, concurrency: int, spans: list[Span] | None = None) -> AsyncIterator[None]:
    """Run a worker with this tool, which does not poll."""
    stop = asyncio.Event()
    options = WorkerOptions(
        dsn=dsn,
        schema=SCHEMA,
        concurrency=concurrency,
        poll_min_seconds=NEVER_SECONDS,
        poll_max_seconds=NEVER_SECONDS,
        emit=None if spans is None else spans.extend,
    )
    task = asyncio.create_task(run_worker(options, stop, {"gate": gate.run}))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await task


async def put(queue: Queue, *names: str) -> list[int]:
    """Queue a job of each name."""
    return [await queue.put_one({"type": "gate", "name": name}) for name in names]


async def commits(queue: Queue) -> dict[tuple[int, str], str]:
    """The commit of each start and completion."""
    return {(queue_id, kind): commit for queue_id, kind, commit in await queue.connection.fetch(COMMITS)}


async def test_a_completion_leases_beside_another_lease(database: Database, queue: Queue, gate: Gate) -> None:
    """The slot of the job is its own; that of the other lease counts as taken."""
    gate.passed.set()
    [late] = await put(queue, "second")
    async with SilentProxy(database, holds=b"on its way") as proxy, working(proxy.database.dsn, gate, concurrency=2):
        await gate.waits.wait()
        [_, following] = await put(queue, "on its way", "third")
        await queue.notify()
        await proxy.held.wait()
        gate.open.set()
        await queue.until(following, "done")
        proxy.release_answers()
    found = await commits(queue)
    assert found[late, "action_completed"] == found[following, "action_started"]


async def test_a_span_on_its_way_takes_no_slot(database: Database, queue: Queue, gate: Gate) -> None:
    """A job whose answer the database has leaves its slot to the next job."""
    ids = await put(queue, "one", "two", "three")
    spans: list[Span] = []
    async with (
        SilentProxy(database, holds=b"traceparent") as proxy,
        working(proxy.database.dsn, gate, concurrency=1, spans=spans),
    ):
        await proxy.held.wait()
        await queue.until(ids[-1], "done")
        proxy.release_answers()
    found = await commits(queue)
    one, two, three = ids
    assert found[one, "action_completed"] == found[two, "action_started"]
    assert found[two, "action_completed"] == found[three, "action_started"]


async def test_answers_of_short_jobs_travel_together(
    database: Database, queue: Queue, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer waits a moment for those of other jobs that have just begun."""
    monkeypatch.setattr(reporter, "GATHER_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(loop, "SHORT_SECONDS", NEVER_SECONDS)
    gate.open.set()
    first, second = await put(queue, "first", "second")
    async with working(database.dsn, gate, concurrency=2):
        await queue.until(second, "done")
    found = await commits(queue)
    assert found[first, "action_completed"] == found[second, "action_completed"]


async def test_an_answer_waits_for_no_long_job(
    database: Database, queue: Queue, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that has run for a while may run on."""
    monkeypatch.setattr(reporter, "GATHER_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(loop, "SHORT_SECONDS", 0.0)
    first, second = await put(queue, "first", "second")
    async with working(database.dsn, gate, concurrency=2):
        await queue.until(first, "done")
        assert await queue.status(second) == "leased"
        gate.open.set()
        await queue.until(second, "done")


async def test_an_answer_waits_for_a_moment_only(
    database: Database, queue: Queue, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short job may be a long one."""
    monkeypatch.setattr(loop, "SHORT_SECONDS", NEVER_SECONDS)
    first, second = await put(queue, "first", "second")
    async with working(database.dsn, gate, concurrency=2):
        await queue.until(first, "done")
        assert await queue.status(second) == "leased"
        gate.open.set()
        await queue.until(second, "done")
