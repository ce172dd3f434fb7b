"""The worker's loop on a real database: which jobs it leases, how it answers, how it stops."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from noetl_broker.errors import OperatorFault, SchemaFault
from noetl_broker.worker import WorkerOptions, run_worker
from tests.chaos.silent_proxy import SilentProxy
from tests.postgres import SCHEMA, Database, asyncpg_connect

PATIENCE_SECONDS = 30.0  # less than the driver waits for an answer
NEVER_SECONDS = 600.0
WATCH = """
create function public.notify_test() returns trigger language plpgsql as $$
begin
  perform pg_notify('queue_changed', new.queue_id || ' ' || new.status);
  return null;
end $$;
create trigger notify_test after update on noetl.queue for each row execute function public.notify_test();
"""
QUEUE = """
insert into noetl.queue (execution_id, node_id, node_name, node_type, action, context)
select 1, '1:s' || ordinal, 's' || ordinal, $1, $2, '{}'
from generate_series((select count(*) from noetl.queue), (select count(*) from noetl.queue) + $3 - 1) ordinal
returning queue_id
"""


class Queue:
    """The queue of a test's database: add jobs, wait for their states."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._changes: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        self._seen: set[tuple[int, str]] = set()

    async def watch(self) -> None:
        """Create the trigger, and listen to changes."""
        await self.connection.execute(WATCH)
        await self.connection.add_listener("queue_changed", self._heard)

    def _heard(self, _connection: object, _process: int, _channel: str, payload: object) -> None:
        queue_id, status = str(payload).split(" ")
        self._changes.put_nowait((int(queue_id), status))

    def forget(self) -> None:
        """Forget the notifications so far."""
        self._seen.clear()
        while not self._changes.empty():
            self._changes.get_nowait()

    async def put(self, action: dict[str, Any], *, number: int = 1) -> list[int]:
        """Queue the action that many times, without a notification."""
        rows = await self.connection.fetch(QUEUE, action["type"], json.dumps(action), number)
        return [row["queue_id"] for row in rows]

    async def put_one(self, action: dict[str, Any]) -> int:
        """Queue the action once."""
        [queue_id] = await self.put(action)
        return queue_id

    async def status(self, queue_id: int) -> str:
        """Give the state of a job."""
        return str(await self.connection.fetchval("select status from noetl.queue where queue_id = $1", queue_id))

    async def notify(self) -> None:
        """Notify the workers."""
        await self.connection.execute("select pg_notify('noetl_job', '')")

    async def until(self, queue_id: int, *statuses: str) -> str:
        """Wait until the job is in one of these states, and return it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for status in statuses:
                    if (queue_id, status) in self._seen:
                        return status
                self._seen.add(await self._changes.get())

    async def events(self, queue_id: int) -> list[tuple[str, Any, Any]]:
        """Give type, result and error of the events of a job, except its start."""
        rows = await self.connection.fetch(
            """
            select event_type, result, error, meta ->> 'retryable' as retryable
            from noetl.event
            where (meta ->> 'queue_id')::bigint = $1 and event_type <> 'action_started'
            order by created_at
            """,
            queue_id,
        )
        return [
            (row["event_type"], *(json.loads(row[key]) if row[key] else None for key in ("result", "error")))
            for row in rows
        ]


@pytest.fixture
async def queue(database: Database) -> AsyncIterator[Queue]:
    """Give this test's queue."""
    connection = await asyncpg_connect(database)
    own = Queue(connection)
    await own.watch()
    yield own
    await connection.close()


@contextlib.asynccontextmanager
async def working(dsn: str, **options: Any) -> AsyncIterator[asyncio.Event]:
    """Run a worker; gives its stop event."""
    stop = asyncio.Event()
    task = asyncio.create_task(
        run_worker(WorkerOptions(dsn=dsn, schema=SCHEMA, **{"poll_max_seconds": 0.2, **options}), stop)
    )
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await task


def python(code: str, **args: Any) -> dict[str, Any]:
    """Make a python action of code and inputs."""
    return {"type": "python", "code_b64": base64.b64encode(code.encode()).decode(), "args": args}


@pytest.fixture
def start_pipe(tmp_path: Path) -> Path:
    """A pipe through which the code of a step reports that it runs."""
    path = tmp_path / "door"
    os.mkfifo(path)
    return path


WAITS = "import os, time\ndef main(start_pipe):\n  open(start_pipe, 'w').write(str(os.getpid()))\n  time.sleep(600)"


ENTERS_AND_WAITS = (
    "def main(start_pipe, exit_pipe):\n  open(start_pipe, 'w').write('1')\n  return open(exit_pipe).read()"
)


async def entered(start_pipe: Path) -> int:
    """Wait until the step runs, and give its process id."""
    return int(await asyncio.to_thread(start_pipe.read_text))


async def ended(pid: int) -> None:
    """Wait until this process has ended."""
    process, gone = os.pidfd_open(pid), asyncio.Event()
    asyncio.get_running_loop().add_reader(process, gone.set)
    try:
        await gone.wait()
    finally:
        asyncio.get_running_loop().remove_reader(process)
        os.close(process)


def alive(pid: int) -> bool:
    """Tell whether this process exists."""
    return Path(f"/proc/{pid}").exists()


async def test_jobs_are_run_and_answered(database: Database, queue: Queue) -> None:
    """More than `concurrency`, with their results or errors."""
    ids = await queue.put(python("def main(a): return a + 1", a=1), number=6)
    bad = await queue.put_one(python("def main(): raise ValueError('bad')"))
    async with working(database.dsn, concurrency=2):
        for queue_id in ids:
            assert await queue.until(queue_id, "done", "failed") == "done"
        await queue.until(bad, "failed")
    assert await queue.events(ids[0]) == [("action_completed", 2, None)]
    [(kind, _, error)] = await queue.events(bad)
    assert (kind, error["message"], error["type"]) == ("action_failed", "bad", "ValueError")


async def test_only_jobs_of_its_types_are_leased(database: Database, queue: Queue) -> None:
    """A job of another type stays for another worker."""
    other = await queue.put_one({"type": "duckdb"})
    mine = await queue.put_one({"type": "noop"})
    async with working(database.dsn):
        await queue.until(mine, "done")
    assert await queue.status(other) == "queued"


async def test_a_worker_of_a_pool_runs_its_jobs_and_is_listed(database: Database, queue: Queue) -> None:
    """Each call names the pools, also the one that completes a job. It leaves the list when it stops."""
    ids = await queue.put({"type": "noop"}, number=3)
    other = await queue.put_one({"type": "noop"})
    await queue.connection.execute("update noetl.queue set pool = 'gpu' where queue_id = any($1::bigint[])", ids)
    async with working(database.dsn, pools=("gpu", "far"), concurrency=1, worker_id="mine"):
        for queue_id in ids:
            await queue.until(queue_id, "done")
        listed = await queue.connection.fetch(
            "select worker_id, pools, slots, version is null from noetl.live_workers()"
        )
        assert [tuple(row) for row in listed] == [("mine", ["gpu", "far"], 1, False)]
    assert await queue.status(other) == "queued"
    assert await queue.connection.fetchval("select count(*) from noetl.worker") == 0


async def test_a_notification_wakes_an_idle_worker(database: Database, queue: Queue) -> None:
    """The next poll would be in ten minutes."""
    known = await queue.put_one({"type": "noop"})
    async with working(database.dsn, poll_min_seconds=NEVER_SECONDS, poll_max_seconds=NEVER_SECONDS):
        await queue.until(known, "done")
        queue_id = await queue.put_one({"type": "noop"})
        await queue.notify()
        await queue.until(queue_id, "done")


async def test_a_lost_lease_kills_the_job(database: Database, queue: Queue, start_pipe: Path) -> None:
    """It gets no answer, and the worker goes on."""
    queue_id = await queue.put_one(python(WAITS, start_pipe=str(start_pipe)))
    async with working(database.dsn, lease_seconds=3, concurrency=1):
        pid = await entered(start_pipe)
        await queue.connection.execute("update noetl.queue set worker_id = 'other' where queue_id = $1", queue_id)
        after = await queue.put_one({"type": "noop"})
        await queue.until(after, "done")
        assert not alive(pid)
    assert await queue.events(queue_id) == []


async def test_a_lease_is_renewed_after_a_silently_lost_connection(
    database: Database, queue: Queue, start_pipe: Path
) -> None:
    """The heartbeat times out early enough for another one on a new connection."""
    queue_id = await queue.put_one(python(WAITS, start_pipe=str(start_pipe)))
    lease = "select lease_until from noetl.queue where queue_id = $1"
    async with (
        SilentProxy(database) as proxy,
        working(proxy.database.dsn, lease_seconds=6, drain_seconds=0, concurrency=1),
    ):
        await entered(start_pipe)
        assert proxy.drop_all(b"noetl-broker") > 1
        first = await queue.connection.fetchval(lease, queue_id)
        queue.forget()
        await queue.until(queue_id, "leased")
        assert await queue.connection.fetchval(lease, queue_id) > first


@pytest.mark.parametrize("fail", [SilentProxy.close, SilentProxy.stop_answering])
async def test_a_job_is_killed_when_its_lease_cannot_be_renewed(
    database: Database, queue: Queue, start_pipe: Path, fail: Callable[[SilentProxy], None]
) -> None:
    """Another worker may have it then: the worker does not wait for its driver."""
    queue_id = await queue.put_one(python(WAITS, start_pipe=str(start_pipe)))
    async with (
        SilentProxy(database) as proxy,
        working(proxy.database.dsn, lease_seconds=3, drain_seconds=0, concurrency=1),
    ):
        pid = await entered(start_pipe)
        fail(proxy)
        assert proxy.drop_all(b"noetl-broker") > 1
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ended(pid)
        late = "select clock_timestamp() - lease_until > interval '4 seconds' from noetl.queue where queue_id = $1"
        assert not await queue.connection.fetchval(late, queue_id)
        proxy.answer_again()  # the worker stops
    assert await queue.events(queue_id) == []


async def test_a_stop_does_not_wait_for_a_silent_database(database: Database, queue: Queue) -> None:
    """A lease statement gets no answer: the worker ends long before the driver's timeout."""
    known = await queue.put_one({"type": "noop"})
    async with SilentProxy(database) as proxy, working(proxy.database.dsn, drain_seconds=0):
        await queue.until(known, "done")
        proxy.stop_answering()
        assert proxy.drop_next(b"noetl-broker") > 1  # the answer about the known job may still be on its way
        async with asyncio.timeout(PATIENCE_SECONDS):
            await proxy.dropped.wait()


async def test_a_stop_waits_for_a_lease_statement(database: Database, queue: Queue) -> None:
    """Otherwise the leased jobs would wait until their leases expire."""
    queue_id = await queue.put_one({"type": "noop", "name": "on its way"})
    async with SilentProxy(database, holds=b"on its way") as proxy, working(proxy.database.dsn) as stop:
        await proxy.held.wait()
        stop.set()
        assert await queue.status(queue_id) == "leased"
        proxy.release_answers()
        await queue.until(queue_id, "done")


async def test_a_full_worker_leases_with_its_completions(database: Database, queue: Queue) -> None:
    """One commit completes a job and leases the next one."""
    ids = await queue.put({"type": "noop"}, number=3)
    async with working(database.dsn, concurrency=1):
        await queue.until(ids[-1], "done")
    rows = await queue.connection.fetch(
        "select event_type, xmin::text from noetl.event where event_type like 'action%' order by created_at"
    )
    assert [kind for kind, _ in rows] == ["action_started", "action_completed"] * 3
    assert [commit for _, commit in rows[1:-1:2]] == [commit for _, commit in rows[2::2]]


async def test_a_stop_waits_for_a_completion_that_leases(database: Database, queue: Queue) -> None:
    """The drain has its time for the jobs that it leased, too."""
    first = await queue.put_one({"type": "noop"})
    second = await queue.put_one({"type": "noop", "name": "on its way"})
    async with (
        SilentProxy(database, holds=b"on its way") as proxy,
        working(proxy.database.dsn, concurrency=1) as stop,
    ):
        await proxy.held.wait()
        stop.set()
        assert (await queue.status(first), await queue.status(second)) == ("done", "leased")
        proxy.release_answers()
        await queue.until(second, "done")


async def test_the_end_of_a_drain_waits_for_a_completion_that_leases(database: Database, queue: Queue) -> None:
    """Otherwise the job that it leased would wait until its lease expires."""
    await queue.put_one({"type": "noop"})
    second = await queue.put_one({"type": "noop", "name": "on its way"})
    lease = "select lease_until < clock_timestamp() + interval '2 s' from noetl.queue where queue_id = $1"
    async with SilentProxy(database, holds=b"on its way") as proxy:
        options = WorkerOptions(dsn=proxy.database.dsn, schema=SCHEMA, concurrency=1, drain_seconds=0)
        stop = asyncio.Event()
        work = asyncio.create_task(run_worker(options, stop))
        await proxy.held.wait()
        stop.set()
        await asyncio.wait([work], timeout=0.5)
        proxy.release_answers()
        await work
    assert await queue.status(second) == "done" or await queue.connection.fetchval(lease, second)


async def test_a_stop_lets_running_jobs_finish(
    database: Database, queue: Queue, start_pipe: Path, tmp_path: Path
) -> None:
    """The worker leases no more jobs."""
    exit_pipe = tmp_path / "exit"
    os.mkfifo(exit_pipe)
    queue_id = await queue.put_one(python(ENTERS_AND_WAITS, start_pipe=str(start_pipe), exit_pipe=str(exit_pipe)))
    async with working(database.dsn, concurrency=2) as stop:
        await entered(start_pipe)
        stop.set()
        await asyncio.to_thread(exit_pipe.write_text, "bye")
        await queue.until(queue_id, "done")
    assert await queue.events(queue_id) == [("action_completed", "bye", None)]


async def test_a_stop_kills_jobs_after_the_drain_time(database: Database, queue: Queue, start_pipe: Path) -> None:
    """The step does not fail: the lease ends at once, and the job is queued again."""
    queue_id = await queue.put_one(python(WAITS, start_pipe=str(start_pipe)))
    async with working(database.dsn, drain_seconds=0, lease_seconds=600):
        pid = await entered(start_pipe)
    assert not alive(pid)
    assert await queue.events(queue_id) == []
    row = await queue.connection.fetchrow(
        "select status, lease_until <= clock_timestamp() + interval '1 second' from noetl.queue where queue_id = $1",
        queue_id,
    )
    assert tuple(row) == ("leased", True)
    requeued = "select requeued from noetl.reap(10, 5)"
    await queue.connection.execute(
        "update noetl.queue set lease_until = clock_timestamp() - interval '1 second' where queue_id = $1", queue_id
    )
    assert await queue.connection.fetchval(requeued) == 1
    assert await queue.status(queue_id) == "queued"


async def test_the_noop_worker_completes_everything(database: Database, queue: Queue) -> None:
    """Of any type, in batches."""
    ids = await queue.put({"type": "anything"}, number=250)
    async with working(database.dsn, null=True):
        for queue_id in ids:
            await queue.until(queue_id, "done")


async def test_a_worker_refuses_wrong_options(empty_database: Database) -> None:
    """A type without a tool, numbers out of bounds, a database without our schema."""
    with pytest.raises(OperatorFault, match="no tool for dbt"):
        await run_worker(WorkerOptions(dsn=None, types=("dbt",)), asyncio.Event())
    with pytest.raises(OperatorFault, match="concurrency must be 1 or more"):
        WorkerOptions(dsn=None, concurrency=0)
    with pytest.raises(SchemaFault):
        await run_worker(WorkerOptions(dsn=empty_database.dsn, schema=empty_database.schema), asyncio.Event())
