"""`Client` and `Worker`: a program that starts an execution, and functions that do its jobs, with a broker between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from noetl_broker import Client, ExecutionFailed, Job, JobFailed, Worker
from noetl_broker.errors import NotFoundFault, OperatorFault
from noetl_broker.playbook.findings import Rules as PlaybookRules
from tests.brokers import broken_invariants, drain, register, running, value
from tests.postgres import Database

DOUBLE = """
workload: {n: 2}
workflow:
  - {step: start, next: double}
  - {step: double, type: doubling, args: {n: "{{ workload.n }}"}, next: end}
  - {step: end, result: "{{ double }}"}
"""
RULES = PlaybookRules(extra_step_types=frozenset({"doubling"}))


@asynccontextmanager
async def at_work(database: Database, worker: Worker, body: str = DOUBLE) -> AsyncIterator[Client]:
    """The playbook `story` registered, a broker and the worker at work, and a client."""
    await register(database, body)
    stop = asyncio.Event()
    async with running(database, playbook_rules=RULES), Client(database.dsn) as client:
        task = asyncio.create_task(worker.run(stop))
        try:
            yield client
        finally:
            stop.set()
            await task


async def test_an_execution_is_started_done_by_a_function_and_awaited(database: Database) -> None:
    """The whole way of the readme: start, a function with a decorator, the result."""
    worker = Worker(database.dsn)

    @worker.task("doubling")
    async def double(job: Job) -> int:
        return int(job.args["n"]) * 2

    async with at_work(database, worker) as client:
        ended = await client.wait(await client.start("story", {"n": 21}), seconds=30)
    assert (ended.status, ended.or_raise(), ended.path, ended.version) == ("COMPLETED", 42, "story", 1)
    assert await broken_invariants(database) == {}


async def test_a_plain_function_runs_beside_the_loop(database: Database) -> None:
    """In a thread, and sees the whole job."""
    worker, seen = Worker(database.dsn), []

    @worker.task("doubling")
    def double(job: Job) -> int:
        seen.append((job.name, job.type, job.attempt, job.path, job.execution_id, job.context["workload"]))
        return 0

    async with at_work(database, worker) as client:
        execution_id = await client.start("story")
        await client.wait(execution_id, seconds=30)
    assert seen == [("double", "doubling", 1, "story", execution_id, {"n": 2})]


async def test_a_function_says_how_it_failed(database: Database) -> None:
    """What JobFailed holds becomes the error of the step; waiting for the result raises it."""
    worker = Worker(database.dsn)

    @worker.task("doubling")
    async def double(job: Job) -> int:
        raise JobFailed(f"{job.args['n']} is enough", kind="too_much", retryable=False, status_code=413)

    async with at_work(database, worker) as client:
        ended = await client.wait(await client.start("story"), seconds=30)
    expected = {"step": "double", "message": "2 is enough", "type": "too_much", "status_code": 413}
    assert (ended.status, ended.error) == ("FAILED", expected)
    with pytest.raises(ExecutionFailed, match=r"of story ended FAILED: 2 is enough"):
        ended.or_raise()


async def test_any_other_exception_fails_the_attempt_with_its_name(database: Database) -> None:
    """And its message and traceback."""
    worker = Worker(database.dsn)

    @worker.task("doubling")
    def double(job: Job) -> int:
        return int(job.args["m"])

    async with at_work(database, worker) as client:
        ended = await client.wait(await client.start("story"), seconds=30)
    assert (ended.status, ended.error["type"], ended.error["message"]) == ("FAILED", "KeyError", "'m'")
    assert "return int(job.args" in ended.error["traceback"]


async def test_a_worker_with_functions_leaves_all_other_jobs_alone(database: Database) -> None:
    """It has no tool for them."""
    worker, reached = Worker(database.dsn), asyncio.Event()

    @worker.task("doubling")
    async def double(job: Job) -> int:
        reached.set()
        return int(job.args["n"])

    body = """
workflow:
  - {step: start, next: [theirs, ours]}
  - {step: theirs, type: python, code: x}
  - {step: ours, type: doubling, args: {n: 1}}
"""
    async with at_work(database, worker, body) as client:
        execution_id = await client.start("story")
        await asyncio.wait_for(reached.wait(), 30)  # both jobs were queued in one transaction
        assert await value(database, "select status from noetl.queue where node_name = 'theirs'") == "queued"
        assert (await client.status(execution_id)).status == "RUNNING"


async def test_one_key_starts_one_execution(database: Database) -> None:
    """The second call gives the id of the first."""
    await register(database, DOUBLE)
    async with Client(database.dsn) as client:
        first = await client.start("story", idempotency_key="order 17")
        assert await client.start("story", idempotency_key="order 17") == first


async def test_an_execution_is_cancelled(database: Database) -> None:
    """Once: the second request finds it ended."""
    await register(database, DOUBLE)
    async with Client(database.dsn) as client:
        execution_id = await client.start("story")
        asked = await client.cancel(execution_id, "changed my mind")
        await drain(database, playbook_rules=RULES)
        ended = await client.wait(execution_id, seconds=30)
        again = await client.cancel(execution_id)
    assert (asked, again, ended.status, ended.error["message"]) == (True, False, "CANCELLED", "changed my mind")


async def test_waiting_has_an_end(database: Database) -> None:
    """Nobody decides here, so nothing ends."""
    await register(database, DOUBLE)
    async with Client(database.dsn) as client:
        execution_id = await client.start("story")
        with pytest.raises(TimeoutError):
            await client.wait(execution_id, seconds=0.1)


async def test_what_cannot_be_is_said(database: Database) -> None:
    """An unknown playbook, an unknown execution, a payload that is no JSON."""
    await register(database, DOUBLE)
    async with Client(database.dsn) as client:
        with pytest.raises(NotFoundFault, match="stori"):
            await client.start("stori")
        with pytest.raises(NotFoundFault, match="no execution 7"):
            await client.status(7)
        with pytest.raises(OperatorFault, match="the payload must be a mapping that JSON can hold"):
            await client.start("story", {"n": object()})


async def test_a_worker_needs_functions_of_different_types() -> None:
    """None at all, or two for one type, are mistakes."""
    worker = Worker("postgresql://127.0.0.1:1/none")
    with pytest.raises(OperatorFault, match="the worker has no function"):
        await worker.run()
    worker.task("doubling")(lambda job: job)
    with pytest.raises(OperatorFault, match="has a function for doubling already"):
        worker.task("doubling")(lambda job: job)
