"""`Client` and `Worker` with a broker between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from inspect import isfunction

import asyncpg
import pytest

from noetl_broker import Client, ExecutionFailed, Job, JobFailed, SyncClient, Worker
from noetl_broker.errors import BrokerError, NotFoundFault, OperatorFault
from noetl_broker.playbook.diagnostics import PlaybookRules
from tests.brokers import PATIENCE_SECONDS, broken_invariants, drain, register, running, start, value
from tests.postgres import Database
from tests.roles import logins

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
    async with running(database, playbook_rules=RULES), Client(database.dsn, schema=database.schema) as client:
        task = asyncio.create_task(worker.run(stop))
        try:
            yield client
        finally:
            stop.set()
            await task


async def test_a_function_runs_the_jobs_of_its_type(database: Database) -> None:
    """As in the README; it gets the whole job, and jobs of other types stay queued."""
    worker, seen = Worker(database.dsn, schema=database.schema), []

    @worker.task("doubling")
    async def double(job: Job) -> int:
        seen.append((job.name, job.type, job.attempt, job.path, job.execution_id, job.context["workload"]))
        if job.args["n"] > 100:
            raise JobFailed(f"{job.args['n']} is enough", kind="too_much", retryable=False, status_code=413)
        return int(job.args["n"]) * 2

    async with at_work(database, worker) as client:
        execution_id = await client.start("story", {"n": 21})
        ended = await client.wait(execution_id, seconds=PATIENCE_SECONDS)
        failed = await client.wait(await client.start("story", {"n": 413}), seconds=PATIENCE_SECONDS)
    assert (ended.status, ended.or_raise(), ended.path, ended.version) == ("COMPLETED", 42, "story", 1)
    assert seen[0] == ("double", "doubling", 1, "story", execution_id, {"n": 21})
    expected = {"step": "double", "message": "413 is enough", "type": "too_much", "status_code": 413}
    assert (failed.status, failed.error) == ("FAILED", expected)
    with pytest.raises(ExecutionFailed, match=r"of story ended FAILED: 413 is enough"):
        failed.or_raise()
    assert await broken_invariants(database) == {}


async def test_many_executions_start_in_one_call(database: Database) -> None:
    """Ids come in the order of the payloads; an error says the number of the payload or the key, and nothing starts.

    A key starts one execution: the second call returns its id.
    """
    await register(database, DOUBLE)
    async with Client(database.dsn, schema=database.schema) as client:
        keys = ["a", None, "a"]
        first, second, again = await client.start_many("story", [{"n": 1}, None, {"n": 1}], idempotency_keys=keys)
        assert (first == again, first == second) == (True, False)
        assert await client.start("story", {"n": 1}, idempotency_key="a") == first
        with pytest.raises(OperatorFault, match="payload 2 of 2 must be a mapping that JSON can hold"):
            await client.start_many("story", [{}, {"n": object()}])
        with pytest.raises(BrokerError, match="the idempotency key a of story is used"):
            await client.start_many("story", [{}, {"n": 3}], idempotency_keys=["b", "a"])
        with pytest.raises(NotFoundFault, match="stori"):
            await client.start_many("stori", [{}])
    assert await value(database, "select count(*) from noetl.execution") == 2


async def test_an_execution_is_cancelled_once(database: Database) -> None:
    """The second request finds it ended."""
    await register(database, DOUBLE)
    async with Client(database.dsn, schema=database.schema) as client:
        execution_id = await client.start("story")
        asked = await client.cancel(execution_id, "changed my mind")
        await drain(database, playbook_rules=RULES)
        ended = await client.wait(execution_id, seconds=PATIENCE_SECONDS)
        again = await client.cancel(execution_id)
    assert (asked, again, ended.status, ended.error["message"]) == (True, False, "CANCELLED", "changed my mind")


async def test_client_errors_name_the_cause(database: Database) -> None:
    """An unknown playbook, an unknown execution, a payload that is not JSON; no broker runs, so nothing ends."""
    await register(database, DOUBLE)
    async with Client(database.dsn, schema=database.schema) as client:
        with pytest.raises(NotFoundFault, match="stori"):
            await client.start("stori")
        with pytest.raises(NotFoundFault, match="no execution 7"):
            await client.status(7)
        with pytest.raises(OperatorFault, match="the payload must be a mapping that JSON can hold"):
            await client.start("story", {"n": object()})
        execution_id = await client.start("story")
        with pytest.raises(TimeoutError):
            await client.wait(execution_id, seconds=0.1)


async def test_a_worker_needs_functions_for_different_types() -> None:
    """None, or two for one type, is an error."""
    worker = Worker("postgresql://127.0.0.1:1/none")
    with pytest.raises(OperatorFault, match="the worker has no function"):
        await worker.run()
    worker.task("doubling")(lambda job: job)
    with pytest.raises(OperatorFault, match="has a function for doubling already"):
        worker.task("doubling")(lambda job: job)


async def test_a_program_decides_for_a_person(database: Database) -> None:
    """It lists what waits, and decides once."""
    await register(
        database, "workflow: [{step: start, next: ask}, {step: ask, type: approval, form: {n: {type: integer}}}]"
    )
    async with Client(database.dsn, schema=database.schema) as client:
        execution_id = await client.start("story")
        await drain(database)
        [approval] = await client.approvals(path="sto*")
        assert (approval.execution_id, approval.step, approval.title) == (execution_id, "ask", "ask")
        with pytest.raises(OperatorFault, match="n: is 'one', it must be integer"):
            await client.decide(approval, approved=True, decided_by="ann", form={"n": "one"})
        assert await client.decide(approval, approved=True, decided_by="ann", form={"n": 1})
        assert not await client.decide(approval, approved=False, decided_by="ann")
        await drain(database)
        assert (await client.wait(execution_id, seconds=PATIENCE_SECONDS)).or_raise()["n"] == 1


async def test_what_a_client_starts_commits_with_the_rows_of_its_caller(database: Database) -> None:
    """Start, cancel and signal roll back with them. It cannot ask; its error is one of the broker."""
    await register(database, DOUBLE)
    connection = await asyncpg.connect(database.dsn)
    try:
        await connection.execute("create temp table own (id bigint)")
        client = Client(schema=database.schema, connection=connection)
        transaction = connection.transaction()
        await transaction.start()
        rolled_back = await client.start("story", {"n": 1})
        await client.signal("paid", "7", {"amount": 5})
        await transaction.rollback()
        async with connection.transaction():
            kept, *_ = await client.start_many("story", [{"n": 2}])
            assert await client.cancel(kept)
            await connection.execute("insert into own (id) values ($1)", kept)
        with pytest.raises(OperatorFault, match="make another one to ask"):
            await client.wait(kept)
        with pytest.raises(NotFoundFault, match="stori"):
            await client.start("stori")
        rows = await connection.fetch("select id from own")
    finally:
        await connection.close()
    assert [row["id"] for row in rows] == [kept] != [rolled_back]
    assert await value(database, "select array_agg(execution_id) from noetl.execution") == [kept]
    assert await value(database, "select count(*) from noetl.signal") == 0


async def test_a_program_without_asyncio_has_the_same_client(database: Database) -> None:
    """Threads share it; after it is closed, it says so."""
    await register(database, DOUBLE)

    def use() -> tuple[list[int], str]:
        with SyncClient(database.dsn, schema=database.schema) as client, ThreadPoolExecutor(4) as threads:
            started = [*threads.map(lambda n: client.start("story", {"n": n}), range(8))]
            assert client.cancel(started[0])
            with pytest.raises(TimeoutError):
                client.wait(started[1], seconds=0.1)
            status = client.status(started[1]).status
        with pytest.raises(RuntimeError, match="this client is closed"):
            client.start("story")
        return started, status

    started, status = await asyncio.to_thread(use)
    assert (len({*started}), status) == (8, "RUNNING")


def test_both_clients_have_the_same_methods() -> None:
    """A method of one that the other lacks is named."""
    own = {"close", "_send", "_ask", "_connection"}
    names = {name for name, member in vars(Client).items() if isfunction(member) and not name.startswith("__")}
    assert {name for name in vars(SyncClient) if not name.startswith("_")} - {"close"} == names - own


async def test_a_program_waits_for_what_it_started(database: Database) -> None:
    """The role of producers is enough; another login is told that there is no such execution."""
    await register(database, "workflow: [{step: start, next: end}, {step: end, result: 7}]")
    async with (
        logins(database) as roles,
        running(database),
        Client(roles.producer.dsn, schema=database.schema) as client,
    ):
        ended = await client.wait(await client.start("story"), seconds=PATIENCE_SECONDS)
        (other,) = await start(database)
        with pytest.raises(NotFoundFault, match="that login:noetl_producer_of"):
            await client.wait(other, seconds=PATIENCE_SECONDS)
    assert (ended.or_raise(), ended.path, ended.version) == (7, "story", 1)
