"""What a job writes into the broker's database commits with its completion, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from noetl_broker import Job, JobFailed, Worker
from noetl_broker.errors import OperatorFault
from tests.chaos.proxy import Ends, Proxied, Proxy, read_message
from tests.postgres import Database
from tests.worker.test_loop import PATIENCE_SECONDS, Queue, queue, working

__all__ = ["queue"]
TABLE = """
create table public.charge (
  queue_id bigint,
  attempt int,
  written_in xid default pg_current_xact_id()::xid,
  parent int references public.charge_of (id) deferrable initially deferred
)"""
INSERT = "insert into public.charge (queue_id, attempt) values ($1, $2)"
ROWS = "select attempt from public.charge order by attempt"
QUERY, COMMIT = b"Q", b"COMMIT;\0"


@pytest.fixture(autouse=True)
async def _table(queue: Queue) -> None:
    await queue.connection.execute("create table public.charge_of (id int primary key)")
    await queue.connection.execute(TABLE)


@asynccontextmanager
async def charging(
    database: Database, function: Callable[[Job], Any], *, dsn: str = "", **options: Any
) -> AsyncIterator[None]:
    """Run a worker with this function, in a transaction, for jobs of the type `charge`."""
    worker = Worker(dsn or database.dsn, schema=database.schema, poll_max_seconds=0.2, **options)
    worker.task("charge", transaction=True)(function)
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await task


async def insert(job: Job) -> dict[str, int]:
    """Write the row of an attempt."""
    await job.connection.execute(INSERT, job.args["n"], job.attempt)
    return {"attempt": job.attempt}


async def put(queue: Queue, n: int = 0) -> int:
    """Queue a job."""
    return await queue.put_one({"type": "charge", "args": {"n": n}})


async def attempts(queue: Queue) -> list[int]:
    """Give the attempts whose rows are there."""
    return [row["attempt"] for row in await queue.connection.fetch(ROWS)]


async def test_rows_commit_with_the_completion(database: Database, queue: Queue) -> None:
    """A second job gets the connection of the first. Json is text in it, as asyncpg gives it."""
    pids = []

    async def writes(job: Job) -> object:
        pids.append(await job.connection.fetchval("select pg_backend_pid()"))
        assert await job.connection.fetchval("select '[1]'::jsonb") == "[1]"
        async with job.connection.transaction():
            return await insert(job)

    async with charging(database, writes, concurrency=1):
        for number in range(2):
            job = await put(queue, number)
            await queue.until(job, "done")
            assert await queue.events(job) == [("action_completed", {"attempt": 1}, None)]
    assert await attempts(queue) == [1, 1]
    assert len(pids) == 2
    assert len({*pids}) == 1
    assert await queue.connection.fetchval(
        "select bool_and(written_in in (select xmin from noetl.queue)) from public.charge"
    )


@pytest.mark.parametrize(
    "statement",
    ["commit", "rollback", "/* x */ END work", "insert into public.charge default values; commit", "begin"],
)
async def test_a_function_cannot_end_its_transaction(database: Database, queue: Queue, statement: str) -> None:
    """The statement is not sent, and the attempt fails for good."""

    async def ends(job: Job) -> None:
        await insert(job)
        await job.connection.execute(statement)

    async with charging(database, ends):
        job = await put(queue)
        await queue.until(job, "failed")
    [(_, _, error)] = await queue.events(job)
    assert error["type"] == "ends_transaction"
    assert "nest" in error["message"]
    assert await attempts(queue) == []


async def test_a_transaction_that_ended_all_the_same_is_found(database: Database, queue: Queue) -> None:
    """The driver's own methods are around the guard."""

    async def ends(job: Job) -> None:
        job.connection.is_ours = True
        await job.connection.execute("commit")

    async with charging(database, ends):
        job = await put(queue)
        await queue.until(job, "failed")
    [(_, _, error)] = await queue.events(job)
    assert error["type"] == "ends_transaction"
    assert "look for rows" in error["message"]


async def test_a_failed_attempt_writes_nothing(database: Database, queue: Queue) -> None:
    """So does one that swallowed the error of a statement."""

    async def fails(job: Job) -> None:
        await insert(job)
        if job.args["n"]:
            with pytest.raises(Exception, match="division by zero"):
                await job.connection.execute("select 1 / 0")
        else:
            raise JobFailed("no")

    errors = []
    async with charging(database, fails):
        for number in range(2):
            job = await put(queue, number)
            await queue.until(job, "failed")
            errors += [error["message"] for _, _, error in await queue.events(job)]
    assert errors[0] == "no"
    assert "the step went on" in errors[1]
    assert await attempts(queue) == []


@pytest.mark.parametrize("change", ["attempts = attempts + 1, worker_id = 'other'", "stop = true"])
async def test_an_attempt_without_its_lease_writes_nothing(database: Database, queue: Queue, change: str) -> None:
    """A lost lease ends nothing. A stopped job is cancelled."""
    ended = asyncio.Event()

    async def loses(job: Job) -> None:
        await insert(job)
        await queue.connection.execute(f"update noetl.queue set {change}")
        ended.set()

    async with charging(database, loses):
        job = await put(queue)
        await ended.wait()
        if "stop" in change:
            await queue.until(job, "cancelled")
    assert await queue.status(job) == ("cancelled" if "stop" in change else "leased")
    assert await attempts(queue) == []


async def test_an_error_of_the_commit_fails_the_attempt(database: Database, queue: Queue) -> None:
    """The constraint is checked at the COMMIT."""

    async def writes(job: Job) -> None:
        await job.connection.execute("insert into public.charge (parent) values (7)")

    async with charging(database, writes):
        job = await put(queue)
        await queue.until(job, "failed")
    [(_, _, error)] = await queue.events(job)
    assert error["type"] == "commit_failed"
    assert "charge_parent_fkey" in error["message"]
    assert await attempts(queue) == []


class LosingProxy(Proxy):
    """Cuts the connection of a job once at its COMMIT; `executed`: the server has it, and its reply is lost."""

    def __init__(self, database: Database, *, executed: bool) -> None:
        super().__init__(database)
        self.executed = executed
        self.cuts = 0

    def connection(self, first: bytes, client: Ends, server: Ends) -> Proxied:
        """Watch the connections of jobs."""
        return _Losing(self, first, client, server) if b"worker job" in first else Proxied(first, client, server)


class _Losing(Proxied):
    def __init__(self, proxy: LosingProxy, first: bytes, client: Ends, server: Ends) -> None:
        super().__init__(first, client, server)
        self._proxy = proxy
        self._committing = False

    async def ask(self) -> None:
        """Pass requests on until the COMMIT."""
        while True:
            kind, message = await read_message(self.client_reader)
            if kind == QUERY and message.endswith(COMMIT) and not self._proxy.cuts:
                self._proxy.cuts += 1
                if not self._proxy.executed:
                    return
                self._committing = True
            self.server.write(message)

    async def answer(self) -> None:
        """Pass answers on, except that to the COMMIT."""
        while data := await self.server_reader.read(65_536):
            if self._committing:
                return
            self.client.write(data)


@pytest.mark.parametrize("executed", [True, False], ids=["executed", "not sent"])
async def test_an_unknown_commit_is_asked_about(database: Database, queue: Queue, *, executed: bool) -> None:
    """Nothing is written again for it: either the attempt is completed, or it fails."""
    async with LosingProxy(database, executed=executed) as proxy, charging(database, insert, dsn=proxy.database.dsn):
        job = await put(queue)
        await queue.until(job, "done" if executed else "failed")
        [(kind, _, _)] = await queue.events(job)
    assert proxy.cuts == 1
    assert kind == ("action_completed" if executed else "action_failed")
    assert await attempts(queue) == ([1] if executed else [])


async def test_a_postgres_step_and_its_save_commit_with_the_result(database: Database, queue: Queue) -> None:
    """Both have the transaction id of the completion. A fault of the save undoes the step, too."""
    action = {
        "type": "postgres",
        "commit": "with_result",
        "command": "insert into public.charge (attempt) values (1) returning attempt, '{\"a\": 1}'::jsonb as data",
        "save": {"table": "public.charge", "data": {"queue_id": "{{ result.row_count }}", "attempt": 2}},
    }
    async with working(database.dsn):
        job = await queue.put_one(action)
        await queue.until(job, "done")
        [(_, result, _)] = await queue.events(job)
        assert result["rows"] == [{"attempt": 1, "data": {"a": 1}}]
        written = "select written_in from public.charge union select xmin from noetl.queue where queue_id = $1"
        assert len(await queue.connection.fetch(written, job)) == 1
        failing = await queue.put_one(action | {"save": {"table": "public.nothing", "data": {"n": 1}}})
        await queue.until(failing, "failed")
    assert await attempts(queue) == [1, 2]


@pytest.mark.parametrize(
    "more, says",
    [
        ({"db_host": "elsewhere"}, "names another one"),
        ({"args": {"db_host": "elsewhere"}}, "names another one"),
        ({"commit": "now"}, "write commit: with_result"),
        ({"command": "vacuum"}, "give it a step of its own"),
    ],
)
async def test_a_step_that_cannot_commit_with_its_result_fails(
    queue: Queue, database: Database, more: Any, says: str
) -> None:
    """Its address may come from its inputs, which registration does not know."""
    async with working(database.dsn):
        job = await queue.put_one({"type": "postgres", "commit": "with_result", "command": "select 1"} | more)
        await queue.until(job, "failed")
    [(_, _, error)] = await queue.events(job)
    assert says in error["message"]


async def test_a_function_in_a_transaction_is_async() -> None:
    """Asyncpg's connection cannot be used from a thread."""
    with pytest.raises(OperatorFault, match="async def"):
        Worker().task("charge", transaction=True)(lambda _job: None)
