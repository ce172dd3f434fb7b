"""A worker of an installation with buckets: one process serves all of them, with the slots of one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from noetl_broker.errors import OperatorFault, SchemaFault
from noetl_broker.store.connect import installation as installations
from noetl_broker.store.connect.buckets import bucket_of_id, buckets_of
from noetl_broker.worker import WorkerOptions, buckets, run_worker, slots
from noetl_broker.worker.tools.task import Task
from tests.brokers import execute, rows, until, value
from tests.postgres import Database
from tests.roles import login
from tests.sessions import session

COUNT = 4
NEVER_SECONDS = 600.0
PATIENCE_SECONDS = 60.0
PUT = """
insert into noetl.queue (queue_id, execution_id, node_id, node_name, node_type, action, context)
select noetl.next_id(), 64 + noetl.bucket_number(), '1:s' || o, 's', 'tick', '{"type": "tick"}', '{}'
from generate_series((select count(*) from noetl.queue), (select count(*) from noetl.queue) + $1 - 1) o
"""
WATCH = """
create function public.tell() returns trigger language plpgsql as $$
begin
  perform pg_notify('job_done', new.queue_id::text);
  return null;
end $$"""
TRIGGER = """
create trigger tell after update on noetl.queue for each row when (new.status = 'done') execute function public.tell()
"""
JOINED = """
select count(*) from noetl.event e
where e.event_type = 'action_started' and exists (
  select from noetl.event c where c.event_type = 'action_completed' and c.xmin::text = e.xmin::text
)
"""
LISTENING = """
select count(*) >= $1 from pg_stat_activity
where application_name like 'noetl-broker worker%' and query ~* '^listen' and state = 'idle'
"""
NOT_DONE = "select count(*) from noetl.queue where status <> 'done'"


class Tick:
    """A tool that records the bucket of each job, and how many ran at once. `hold` keeps jobs until `opened`."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.running = self.most = 0
        self.hold = False
        self.opened = asyncio.Event()
        self._changed = asyncio.Event()

    async def run(self, task: Task) -> int:
        """Run a job."""
        self.running += 1
        self.most = max(self.most, self.running)
        self.ran.append(bucket_of_id(task.job.queue_id))
        self._changed.set()
        await asyncio.sleep(0)
        if self.hold:
            await self.opened.wait()
        self.running -= 1
        return self.ran[-1]

    async def until(self, is_so: Callable[[list[int]], bool]) -> None:
        """Wait until it is so of the buckets of the jobs that have begun."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not is_so(self.ran):
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def tick() -> Tick:
    """The tool of this test's worker."""
    return Tick()


async def put(bucket: Database, number: int) -> None:
    """Queue so many jobs, and notify."""
    await execute(bucket, PUT, number)
    await execute(bucket, "select pg_notify('noetl_job', '')")


@contextlib.asynccontextmanager
async def working(installation: Database, tick: Tick, **options: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """Run a worker that does not poll."""
    stop = asyncio.Event()
    options = {"poll_min_seconds": NEVER_SECONDS, "poll_max_seconds": NEVER_SECONDS, "drain_seconds": 20} | options
    own = WorkerOptions(dsn=installation.dsn, schema=installation.schema, **options)
    task = asyncio.create_task(run_worker(own, stop, {"tick": tick.run}))
    try:
        yield task
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.wait([task])


async def not_done(installation: Database, numbers: Sequence[int] = range(COUNT)) -> list[int]:
    """How many jobs are not done, for each of these buckets."""
    return [await value(installation.bucket(number), NOT_DONE) for number in numbers]


async def test_one_worker_does_the_jobs_of_all_buckets(installation: Database, tick: Tick) -> None:
    """Never more at once than it has slots, over two connections a bucket at most. It announces its types in each."""
    for one in buckets_of(installation, COUNT):
        await put(one, 40)
    tick.hold = True
    async with working(installation, tick, concurrency=3) as worker:
        await tick.until(lambda ran: len(ran) >= 3)
        for number in [*range(COUNT)] * 5:  # each may lease more, if it does so
            await execute(installation.bucket(number), "select pg_notify('noetl_job', '')")
        tick.hold = False
        tick.opened.set()
        await tick.until(lambda ran: len(ran) == 40 * COUNT)
        connections = (
            "select application_name, count(*) from pg_stat_activity where application_name like $1 group by 1"
        )
        found = dict(await rows(installation, connections, "noetl-broker worker%"))
        assert len(found) == 2 * COUNT
        assert {*found.values()} == {1}
        await put(installation.bucket(3), 1)  # a notification of one bucket wakes its loop
        await tick.until(lambda ran: len(ran) == 40 * COUNT + 1)
    assert await not_done(installation) == [0] * COUNT
    assert tick.most == 3
    assert worker.result().done == 40 * COUNT + 1
    for one in buckets_of(installation, COUNT):
        assert await rows(one, "select name from noetl.step_type") == [("tick",)]


async def test_the_role_of_workers_suffices(installation: Database, tick: Tick) -> None:
    """In the schema of the installation and in its buckets."""
    await installations.create_roles(installation)
    await put(installation.bucket(1), 5)
    async with login(installation, "a_worker", f"{installation.schema}_worker") as own, working(own, tick):
        await tick.until(lambda ran: len(ran) == 5)
    assert await not_done(installation, [1]) == [0]


async def test_full_buckets_take_turns(installation: Database, tick: Tick, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one slot, none of them waits for the end of another. A bucket without jobs takes no turn from them."""
    monkeypatch.setattr(slots, "TURN_SECONDS", 0.0)
    full = 0, 2, 3
    for number in full:
        await put(installation.bucket(number), 40)
    tick.hold = True
    async with working(installation, tick, concurrency=1):
        await tick.until(lambda ran: len(ran) == 1)
        await until(installation, LISTENING, COUNT)  # all loops have begun
        tick.hold = False
        tick.opened.set()
        await tick.until(lambda ran: len(ran) == 120)
    assert tick.most == 1
    begins = [tick.ran.index(number) for number in full]
    ends = [len(tick.ran) - tick.ran[::-1].index(number) for number in full]
    assert max(begins) < min(ends)


async def test_a_bucket_goes_on_for_its_turn(
    installation: Database, tick: Tick, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its completions lease its next jobs, although other buckets wait. Then the others have their turn."""
    monkeypatch.setattr(slots, "TURN_SECONDS", NEVER_SECONDS)
    for number in range(COUNT):
        await put(installation.bucket(number), 40)
    async with working(installation, tick, concurrency=2):
        await tick.until(lambda ran: len(ran) == 40 * COUNT)
    changes = sum(one != other for one, other in zip(tick.ran, tick.ran[1:], strict=False))
    assert changes < 2 * COUNT
    assert sum([await value(one, JOINED) for one in buckets_of(installation, COUNT)]) > 30 * COUNT


async def test_a_job_that_is_long_does_not_stop_the_turns(installation: Database, tick: Tick) -> None:
    """Slots of the others go round beside it."""
    tick.hold = True
    await put(installation.bucket(1), 1)
    async with working(installation, tick, concurrency=2):
        await tick.until(lambda ran: len(ran) == 1)
        tick.hold = False
        for number in (0, 2):
            await put(installation.bucket(number), 20)
        await tick.until(lambda ran: len(ran) == 41)
        assert tick.running <= 2
        tick.opened.set()
    assert await not_done(installation) == [0] * COUNT
    assert tick.most <= 2


async def test_only_the_named_buckets_are_served(installation: Database, tick: Tick) -> None:
    """The jobs of the others stay."""
    for one in buckets_of(installation, COUNT):
        await put(one, 3)
    async with working(installation, tick, buckets="1-2"):
        await tick.until(lambda ran: len(ran) == 6)
    assert {*tick.ran} == {1, 2}
    assert await not_done(installation) == [3, 0, 0, 3]


async def test_a_worker_that_runs_nothing_serves_all_buckets(installation: Database) -> None:
    """`null` completes them in batches."""
    done, all_done = 0, asyncio.Event()

    def hear(*_notification: object) -> None:
        nonlocal done
        done += 1
        if done == 30 * COUNT:
            all_done.set()

    await execute(installation, WATCH)
    for one in buckets_of(installation, COUNT):
        await execute(one, TRIGGER)
        await put(one, 30)
    stop = asyncio.Event()
    options = WorkerOptions(dsn=installation.dsn, schema=installation.schema, null=True, null_batch=7)
    async with session(installation) as own, asyncio.timeout(PATIENCE_SECONDS):
        await own.add_listener("job_done", hear)
        worker = asyncio.create_task(run_worker(options, stop))
        await all_done.wait()
        stop.set()
        assert (await worker).done == 30 * COUNT


async def test_a_bucket_without_schema_does_not_stop_the_others(installation: Database, tick: Tick) -> None:
    """The log names it. When all have failed, the worker ends with the fault."""
    await execute(installation.bucket(2), "drop schema noetl cascade")
    with capture_logs() as lines:
        async with working(installation, tick, concurrency=1):
            for number in (0, 1, 3):
                await put(installation.bucket(number), 5)
            await tick.until(lambda ran: len(ran) == 15)
    [line, *_] = [line for line in lines if line["event"] == "bucket_not_served"]
    assert line["schema"] == installation.bucket(2).schema
    assert "run `noetl-broker migrate`" in line["error"]
    for number in (0, 1, 3):
        await execute(installation.bucket(number), "drop schema noetl cascade")
    async with working(installation, tick) as worker:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.wait([worker])
        assert isinstance(worker.exception(), SchemaFault)


async def test_a_bucket_is_served_again(installation: Database, tick: Tick, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its schema is there again. The fault of another one later ends nothing."""
    monkeypatch.setattr(buckets, "PAUSE_SECONDS", (0.01, 0.01))
    name = installation.bucket(0).schema
    await execute(installation, f"alter schema {name} rename to away")
    async with working(installation, tick, buckets=[0, 1]) as worker:
        await put(installation.bucket(1), 1)
        await tick.until(lambda ran: len(ran) == 1)
        await execute(installation, f"alter schema away rename to {name}")
        await put(installation.bucket(0), 1)
        await tick.until(lambda ran: len(ran) == 2)
        await execute(installation.bucket(1), "drop schema noetl cascade")
        await execute(installation.bucket(1), "select pg_notify('noetl_job', '')")
        await put(installation.bucket(0), 1)
        await tick.until(lambda ran: len(ran) == 3)
        assert not worker.done()


async def test_a_locked_bucket_holds_no_slot(installation: Database, tick: Tick) -> None:
    """Neither before a lease, nor with an answer that it does not take. Later its jobs are done too."""
    await put(installation.bucket(1), 2)
    tick.hold = True
    lock = "lock table noetl.queue in access exclusive mode"
    async with session(installation.bucket(1)) as own, session(installation.bucket(3)) as other:
        transaction, begun = own.transaction(), other.transaction()
        await begun.start()
        await other.execute(lock)
        async with working(installation, tick, concurrency=1):
            await tick.until(lambda ran: ran == [1])
            await transaction.start()
            await own.execute(lock)
            tick.hold = False
            tick.opened.set()
            for number in (0, 2):
                await put(installation.bucket(number), 5)
            await tick.until(lambda ran: len(ran) == 11)
            await transaction.rollback()
            await tick.until(lambda ran: len(ran) == 12)
        await begun.rollback()
    assert await not_done(installation) == [0] * COUNT
    assert tick.most == 1


@pytest.mark.parametrize(
    "given, part",
    [
        ("", "buckets has '', which is no bucket and no range: write numbers from 0 to 63, for example 0-7,12"),
        ("3-1", "buckets has '3-1'"),
        ("0,x", "buckets has 'x'"),
        ("-1", "buckets has '-1'"),
        ("64", "buckets has '64'"),
        ("1-2-3", "buckets has '1-2-3'"),
        ((70,), "buckets has '70'"),
        ((), "buckets is empty: name the buckets to serve, or leave it out for all"),
    ],
)
def test_wrong_buckets_are_refused(given: str | tuple[int, ...], part: str) -> None:
    """With the value and what to write."""
    with pytest.raises(OperatorFault, match=part):
        WorkerOptions(dsn=None, buckets=given)


async def test_buckets_that_are_not_there_are_refused(installation: Database, database: Database) -> None:
    """Of an installation with fewer, and of a schema without buckets."""
    assert WorkerOptions(dsn=None, buckets=" 0-2, 7,1 ").bucket_numbers == (0, 1, 2, 7)
    for place, part in (
        (installation, "has no bucket 4, 5: it has 0 to 3; name some of these in buckets"),
        (database, "has no buckets: leave buckets out, or name an installation with buckets"),
    ):
        with pytest.raises(OperatorFault, match=part):
            await run_worker(WorkerOptions(dsn=place.dsn, schema=place.schema, buckets="2-5"), asyncio.Event())
