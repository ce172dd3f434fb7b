"""The worker's loop on a real database: what it leases, what it answers, how it stops."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from noetl_broker.errors import OperatorFault, SchemaFault
from noetl_broker.store import embedded
from noetl_broker.store.migrate import migrate
from noetl_broker.worker import WorkerOptions, run_worker
from tests.chaos.swallow import Swallower
from tests.postgres import Database

PATIENCE_SECONDS = 20.0
NEVER_SECONDS = 600.0
WATCH = """
create function public.tell() returns trigger language plpgsql as $$
begin
  perform pg_notify('queue_changed', new.queue_id || ' ' || new.status);
  return null;
end $$;
create trigger tell after update on noetl.queue for each row execute function public.tell();
"""
QUEUE = """
insert into noetl.queue (execution_id, node_id, node_name, node_type, action, context)
select 1, '1:s' || ordinal, 's' || ordinal, $1, $2, '{}'
from generate_series((select count(*) from noetl.queue), (select count(*) from noetl.queue) + $3 - 1) ordinal
returning queue_id
"""


class Queue:
    """The queue of a test's database: put jobs in, wait until they are in a state."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._changes: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        self._seen: set[tuple[int, str]] = set()

    async def watch(self) -> None:
        """Begin to hear of changes."""
        await self.connection.execute(WATCH)
        await self.listen()

    async def listen(self) -> None:
        """Hear of changes where they are told already."""
        await self.connection.add_listener("queue_changed", self._heard)

    def _heard(self, _connection: object, _process: int, _channel: str, payload: object) -> None:
        queue_id, status = str(payload).split(" ")
        self._changes.put_nowait((int(queue_id), status))

    def forget(self) -> None:
        """Forget what was heard."""
        self._seen.clear()
        while not self._changes.empty():
            self._changes.get_nowait()

    async def put(self, action: dict[str, Any], *, number: int = 1) -> list[int]:
        """Queue the action that many times; nobody is told of it."""
        rows = await self.connection.fetch(QUEUE, action["type"], json.dumps(action), number)
        return [row["queue_id"] for row in rows]

    async def put_one(self, action: dict[str, Any]) -> int:
        """Queue the action once."""
        [queue_id] = await self.put(action)
        return queue_id

    async def status(self, queue_id: int) -> str:
        """Ask for the state of a job."""
        return str(await self.connection.fetchval("select status from noetl.queue where queue_id = $1", queue_id))

    async def ring(self) -> None:
        """Tell workers that there is something."""
        await self.connection.execute("select pg_notify('noetl_job', '')")

    async def until(self, queue_id: int, *statuses: str) -> str:
        """Wait until the job is in one of these states, and say in which."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for status in statuses:
                    if (queue_id, status) in self._seen:
                        return status
                self._seen.add(await self._changes.get())

    async def events(self, queue_id: int) -> list[tuple[str, Any, Any]]:
        """Give type, result and error of the events of a job, without its start."""
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
    connection = await asyncpg.connect(database.dsn)
    own = Queue(connection)
    await own.watch()
    yield own
    await connection.close()


@contextlib.asynccontextmanager
async def working(dsn: str, **options: Any) -> AsyncIterator[asyncio.Event]:
    """Have a worker at work; gives its stop."""
    stop = asyncio.Event()
    task = asyncio.create_task(run_worker(WorkerOptions(dsn=dsn, **{"poll_max_seconds": 0.2, **options}), stop))
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
def door(tmp_path: Path) -> Path:
    """A pipe through which the code of a step says that it runs."""
    path = tmp_path / "door"
    os.mkfifo(path)
    return path


WAITS = "import os, time\ndef main(door):\n  open(door, 'w').write(str(os.getpid()))\n  time.sleep(600)"


ENTERS_AND_WAITS = "def main(door, way_out):\n  open(door, 'w').write('1')\n  return open(way_out).read()"


async def entered(door: Path) -> int:
    """Wait until the step runs, and give its process id."""
    return int(await asyncio.to_thread(door.read_text))


async def ended(pid: int) -> None:
    """Wait until there is no such process."""
    process, gone = os.pidfd_open(pid), asyncio.Event()
    asyncio.get_running_loop().add_reader(process, gone.set)
    try:
        await gone.wait()
    finally:
        asyncio.get_running_loop().remove_reader(process)
        os.close(process)


def alive(pid: int) -> bool:
    """Tell whether there is such a process."""
    return Path(f"/proc/{pid}").exists()


async def test_jobs_are_run_and_answered(database: Database, queue: Queue) -> None:
    """More than fit at once, with their results."""
    ids = await queue.put(python("def main(a): return a + 1", a=1), number=6)
    async with working(database.dsn, concurrency=2):
        for queue_id in ids:
            assert await queue.until(queue_id, "done", "failed") == "done"
    assert await queue.events(ids[0]) == [("action_completed", 2, None)]


async def test_a_failure_is_answered(database: Database, queue: Queue) -> None:
    """With its error."""
    queue_id = await queue.put_one(python("def main(): raise ValueError('bad')"))
    async with working(database.dsn):
        await queue.until(queue_id, "failed")
    [(kind, _, error)] = await queue.events(queue_id)
    assert (kind, error["message"], error["type"]) == ("action_failed", "bad", "ValueError")


async def test_only_types_that_it_has_are_leased(database: Database, queue: Queue) -> None:
    """A job of another type stays for another worker."""
    other = await queue.put_one({"type": "duckdb"})
    mine = await queue.put_one({"type": "noop"})
    async with working(database.dsn):
        await queue.until(mine, "done")
    assert await queue.status(other) == "queued"


async def test_the_bell_wakes_an_idle_worker(database: Database, queue: Queue) -> None:
    """Without it the next look would be in ten minutes."""
    known = await queue.put_one({"type": "noop"})
    async with working(database.dsn, poll_min_seconds=NEVER_SECONDS, poll_max_seconds=NEVER_SECONDS):
        await queue.until(known, "done")
        queue_id = await queue.put_one({"type": "noop"})
        await queue.ring()
        await queue.until(queue_id, "done")


async def test_a_lost_lease_ends_the_work(database: Database, queue: Queue, door: Path) -> None:
    """Its process is killed and nothing is answered; the worker goes on."""
    queue_id = await queue.put_one(python(WAITS, door=str(door)))
    async with working(database.dsn, lease_seconds=1, concurrency=1):
        pid = await entered(door)
        await queue.connection.execute("update noetl.queue set worker_id = 'other' where queue_id = $1", queue_id)
        after = await queue.put_one({"type": "noop"})
        await queue.until(after, "done")
        assert not alive(pid)
    assert await queue.events(queue_id) == []


async def test_a_lease_is_kept_while_the_job_runs(database: Database, queue: Queue, door: Path) -> None:
    """By heartbeats that set it further each time."""
    queue_id = await queue.put_one(python(WAITS, door=str(door)))
    lease = "select lease_until from noetl.queue where queue_id = $1"
    async with working(database.dsn, lease_seconds=1, drain_seconds=0):
        await entered(door)
        first = await queue.connection.fetchval(lease, queue_id)
        queue.forget()
        await queue.until(queue_id, "leased")
        assert await queue.connection.fetchval(lease, queue_id) > first


async def test_a_lease_is_kept_where_a_connection_is_silently_lost(
    database: Database, queue: Queue, door: Path
) -> None:
    """The heartbeat that nobody answers is given up in time for another, on a new connection."""
    queue_id = await queue.put_one(python(WAITS, door=str(door)))
    lease = "select lease_until from noetl.queue where queue_id = $1"
    async with Swallower(database) as wire, working(wire.database.dsn, lease_seconds=6, drain_seconds=0, concurrency=1):
        await entered(door)
        assert wire.swallow(b"noetl-broker") > 1
        first = await queue.connection.fetchval(lease, queue_id)
        queue.forget()
        await queue.until(queue_id, "leased")
        assert await queue.connection.fetchval(lease, queue_id) > first


@pytest.mark.parametrize("fail", [Swallower.close, Swallower.stay_silent])
async def test_a_job_ends_with_its_lease_where_nothing_comes_back(
    database: Database, queue: Queue, door: Path, fail: Callable[[Swallower], None]
) -> None:
    """Somebody else may have it by then: the worker does not wait for its driver to give up, nor for a connection."""
    queue_id = await queue.put_one(python(WAITS, door=str(door)))
    async with Swallower(database) as wire, working(wire.database.dsn, lease_seconds=3, drain_seconds=0, concurrency=1):
        pid = await entered(door)
        fail(wire)
        assert wire.swallow(b"noetl-broker") > 1
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ended(pid)
        late = "select clock_timestamp() - lease_until > interval '1 second' from noetl.queue where queue_id = $1"
        assert not await queue.connection.fetchval(late, queue_id)
        wire.speak()  # the worker stops
    assert await queue.events(queue_id) == []


async def test_a_stop_waits_for_nobody_who_does_not_answer(database: Database, queue: Queue) -> None:
    """The worker has asked for jobs, and the network swallows that: it ends long before the driver gives up."""
    known = await queue.put_one({"type": "noop"})
    async with Swallower(database) as wire, working(wire.database.dsn, drain_seconds=0):
        await queue.until(known, "done")
        wire.stay_silent()
        assert wire.swallow(b"noetl-broker") > 1
        await wire.swallowed.wait()


async def test_a_stop_waits_for_jobs_that_are_on_their_way(database: Database, queue: Queue) -> None:
    """They are its own already: nobody else has them before their leases run out."""
    queue_id = await queue.put_one({"type": "noop", "name": "on its way"})
    async with Swallower(database, keeps=b"on its way") as wire, working(wire.database.dsn) as stop:
        await wire.kept.wait()
        stop.set()
        assert await queue.status(queue_id) == "leased"
        wire.give_answers()
        await queue.until(queue_id, "done")


async def test_a_stop_lets_a_job_finish(database: Database, queue: Queue, door: Path, tmp_path: Path) -> None:
    """And leases no more."""
    exit_door = tmp_path / "exit"
    os.mkfifo(exit_door)
    queue_id = await queue.put_one(python(ENTERS_AND_WAITS, door=str(door), way_out=str(exit_door)))
    async with working(database.dsn, concurrency=2) as stop:
        await entered(door)
        stop.set()
        await asyncio.to_thread(exit_door.write_text, "bye")
        await queue.until(queue_id, "done")
    assert await queue.events(queue_id) == [("action_completed", "bye", None)]


async def test_a_stop_kills_what_takes_too_long(database: Database, queue: Queue, door: Path) -> None:
    """That is no failure of the step's: its lease runs out at once, and the job will be queued again."""
    queue_id = await queue.put_one(python(WAITS, door=str(door)))
    async with working(database.dsn, drain_seconds=0, lease_seconds=600):
        pid = await entered(door)
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


async def test_a_null_worker_completes_everything(database: Database, queue: Queue) -> None:
    """Of any type, in batches."""
    ids = await queue.put({"type": "anything"}, number=250)
    async with working(database.dsn, null=True):
        for queue_id in ids:
            await queue.until(queue_id, "done")


async def test_a_worker_refuses_what_cannot_work(empty_database: Database) -> None:
    """A type without a tool, numbers out of bounds, a database without our schema."""
    with pytest.raises(OperatorFault, match="no tool for dbt"):
        await run_worker(WorkerOptions(dsn=None, types=("dbt",)), asyncio.Event())
    with pytest.raises(OperatorFault, match="concurrency must be 1 or more"):
        WorkerOptions(dsn=None, concurrency=0)
    with pytest.raises(SchemaFault):
        await run_worker(WorkerOptions(dsn=empty_database.dsn), asyncio.Event())


@pytest.mark.chaos
async def test_a_worker_survives_restarts_of_the_database(door: Path, tmp_path: Path) -> None:
    """A job that ends while the database is away is answered when it is back, and the bell is heard again."""
    way_out = tmp_path / "exit"
    os.mkfifo(way_out)
    with embedded.start(settings={"fsync": "off"}) as postgres:
        await migrate(postgres.dsn())
        before = Queue(await asyncpg.connect(postgres.dsn()))
        await before.watch()
        queue_id = await before.put_one(python(ENTERS_AND_WAITS, door=str(door), way_out=str(way_out)))
        async with working(postgres.dsn(), poll_max_seconds=0.05):
            await entered(door)
            await asyncio.to_thread(postgres.stop, "immediate")
            await asyncio.to_thread(way_out.write_text, "bye")
            await asyncio.to_thread(postgres.launch)
            queue = Queue(await asyncpg.connect(postgres.dsn()))
            await queue.listen()
            if await queue.status(queue_id) != "done":
                await queue.until(queue_id, "done")
            after = await queue.put_one({"type": "noop"})
            await queue.ring()
            await queue.until(after, "done")
            await queue.connection.close()
