"""A finished answer reaches the database: no heartbeat, no lease that ran out and no outage takes it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from noetl_broker import logs
from noetl_broker.store.jobs import Completion, JobDatabase, Lease
from noetl_broker.worker import WorkerOptions, null, pool, report, run_worker
from noetl_broker.worker.logger import Log
from noetl_broker.worker.tally import Tally
from noetl_broker.worker.tools.task import Task
from tests.brokers import value
from tests.chaos.door import FOR_EVER, Door
from tests.chaos.swallow import Swallower
from tests.chaos.under_load import until
from tests.postgres import Database
from tests.worker.test_pool import PATIENCE_SECONDS, Queue, queue

__all__ = ["queue"]
KEPT = "this answer is kept"
WARN = f"""
create function public.warn() returns trigger language plpgsql as $$
begin
  raise warning '{KEPT}';
  return new;
end $$;
create trigger warn before insert on noetl.event for each row
when (new.event_type = 'action_completed' and new.node_name = 's0')
execute function public.warn();
"""
TERMINATE = """
    select count(pg_terminate_backend(pid))
    from pg_stat_activity
    where datname = current_database() and application_name like 'noetl-broker worker%'"""
LISTENS = """
    select exists (
      select
      from pg_stat_activity
      where datname = current_database() and application_name = 'noetl-broker worker listener' and query ilike 'listen%'
    )"""
RAN_OUT = "select lease_until < clock_timestamp() - interval '0.5 s' from noetl.queue where queue_id = $1"
STATE = "select (status, attempts)::text from noetl.queue where queue_id = $1"


class Held:
    """A tool whose jobs say that they run, and end when they are let go."""

    def __init__(self) -> None:
        """All jobs are held."""
        self.entered: asyncio.Queue[int] = asyncio.Queue()
        self._go: dict[int, asyncio.Event] = {}

    async def run(self, task: Task) -> int:
        """Do one job."""
        queue_id = task.job.queue_id
        self.entered.put_nowait(queue_id)
        await self._go.setdefault(queue_id, asyncio.Event()).wait()
        return queue_id

    def let_go(self, queue_id: int) -> None:
        """End one job."""
        self._go.setdefault(queue_id, asyncio.Event()).set()


class Lines:
    """The lines of the worker's log, as they come."""

    def __init__(self) -> None:
        """No line yet."""
        self.all: list[dict[str, Any]] = []
        self._came = asyncio.Event()

    def take(self, _logger: object, _method: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """Keep a line, and write it nowhere."""
        self.all.append(dict(line))
        self._came.set()
        raise structlog.DropEvent

    def of(self, *events: str) -> list[tuple[Any, Any]]:
        """Give event and job of the lines of these events."""
        return [(line["event"], line.get("queue_id")) for line in self.all if line["event"] in events]

    async def until(self, event: str, *, count: int = 1) -> None:
        """Wait until there are so many lines of this event."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.of(event)) < count:
                self._came.clear()
                await self._came.wait()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Give the lines of the worker's log."""
    own = Lines()
    structlog.reset_defaults()
    structlog.configure(processors=[own.take])
    for module in (null, pool, report):
        monkeypatch.setattr(module, "log", Log("test"))
    yield own
    structlog.reset_defaults()
    logs.configure(level="error", form="console")


@asynccontextmanager
async def holding(database: Database, held: Held, **options: Any) -> AsyncIterator[tuple[asyncio.Event, list[Tally]]]:
    """Have a worker at work on jobs of the type `held`; gives its stop, and its tally once it has ended."""
    stop, tallies = asyncio.Event(), list[Tally]()
    settings = WorkerOptions(dsn=database.dsn, **{"poll_max_seconds": 0.2, "lease_seconds": 1, **options})
    task = asyncio.create_task(run_worker(settings, stop, {"held": held.run}))
    try:
        yield stop, tallies
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            tallies.append(await task)


async def cut_off(database: Database, door: Door) -> None:
    """Have a server that ends the worker's connections and lets it in no more."""
    door.refuse("57P03", times=FOR_EVER)
    await value(database, TERMINATE)


async def test_a_heartbeat_that_meets_an_answer_on_its_way_takes_nothing_back(
    database: Database, queue: Queue, lines: Lines
) -> None:
    """The job is done, so its heartbeat says that it is not ours any more; the answer counted, and that is told."""
    await queue.connection.execute(WARN)
    held = Held()
    first, second = await queue.put({"type": "held"}, number=2)
    async with (
        Swallower(database, keeps=KEPT.encode()) as wire,
        holding(wire.database, held, concurrency=2) as (_, tallies),
    ):
        assert {await held.entered.get(), await held.entered.get()} == {first, second}
        held.let_go(first)
        await queue.until(first, "done")
        await wire.kept.wait()
        for _ in range(2):  # heartbeats of both jobs, the last of which began after the first was done
            queue.forget()
            await queue.until(second, "leased")
        wire.give_answers()
        held.let_go(second)
        await queue.until(second, "done")
    assert (tallies[0].leased, tallies[0].done) == (2, 2)
    assert lines.of("answer_lost", "answer_too_late", "answer_not_sent", "job_killed") == []


async def test_an_answer_is_sent_after_the_end_of_its_lease(database: Database, queue: Queue, lines: Lines) -> None:
    """The database was away for longer than the lease; nobody took the job over, so the work is not done twice."""
    held = Held()
    queue_id = await queue.put_one({"type": "held"})
    async with Door(database) as door, holding(door.database, held) as (_, tallies):
        await held.entered.get()
        await cut_off(database, door)
        held.let_go(queue_id)
        await lines.until("answers_wait")
        await until(database, RAN_OUT, queue_id)
        door.refuse("", times=0)
        await queue.until(queue_id, "done")
    assert await value(database, STATE, queue_id) == "(done,1)"
    assert tallies[0].done == 1
    assert lines.of("job_ended", "answer_lost", "job_killed") == [("job_ended", queue_id)]


async def test_an_answer_that_comes_too_late_is_told_as_such(database: Database, queue: Queue, lines: Lines) -> None:
    """The job was taken over while the answer waited: the database refuses it, and its new holder's counts."""
    held = Held()
    queue_id = await queue.put_one({"type": "held"})
    async with Door(database) as door, holding(door.database, held) as (_, tallies):
        await held.entered.get()
        await cut_off(database, door)
        held.let_go(queue_id)
        await lines.until("answers_wait")
        await until(database, RAN_OUT, queue_id)
        await queue.connection.execute("select noetl.reap(10, 5)")
        await queue.connection.execute("select noetl.lease_jobs('other', 1, 600)")
        door.refuse("", times=0)
        await lines.until("answer_too_late")
    assert await value(database, STATE, queue_id) == "(leased,2)"
    assert tallies[0].done == 0
    assert lines.of("answer_too_late", "job_ended", "answer_lost") == [("answer_too_late", queue_id)]


async def test_a_slot_stays_taken_until_its_answer_is_sent(database: Database, queue: Queue, lines: Lines) -> None:
    """So no more answers wait than the worker does jobs at a time."""
    held = Held()
    first, second = await queue.put({"type": "held"}, number=2)
    async with Door(database) as door, holding(door.database, held, concurrency=1):
        assert await held.entered.get() == first
        door.refuse("57P03", times=FOR_EVER, named="noetl-broker worker")
        await value(database, TERMINATE)
        held.let_go(first)
        await lines.until("answers_wait", count=3)
        assert (held.entered.empty(), await queue.status(second)) == (True, "queued")
        door.refuse("", times=0)
        assert await held.entered.get() == second
        assert await queue.status(first) == "done"
        held.let_go(second)
        await queue.until(second, "done")


async def test_a_stop_says_which_answers_were_not_sent(database: Database, queue: Queue, lines: Lines) -> None:
    """The worker has tried for its drain time; the job is done again once its lease has run out."""
    held = Held()
    queue_id = await queue.put_one({"type": "held"})
    async with Door(database) as door:
        async with holding(door.database, held, drain_seconds=0.3) as (stop, tallies):
            await held.entered.get()
            await cut_off(database, door)
            held.let_go(queue_id)
            await lines.until("answers_wait")
            stop.set()
        assert lines.of("answer_not_sent", "job_ended", "answer_lost") == [("answer_not_sent", queue_id)]
    assert tallies[0].done == 0
    [told] = [line for line in lines.all if line["event"] == "answer_not_sent"]
    assert "the database system is starting up" in told["error"]
    assert await value(database, STATE, queue_id) == "(leased,1)"


async def test_a_stop_waits_for_an_answer_while_it_may(database: Database, queue: Queue, lines: Lines) -> None:
    """The database comes back within the drain time."""
    held = Held()
    queue_id = await queue.put_one({"type": "held"})
    async with Door(database) as door, holding(door.database, held) as (stop, tallies):
        await held.entered.get()
        await cut_off(database, door)
        held.let_go(queue_id)
        await lines.until("answers_wait")
        stop.set()
        await lines.until("worker_draining")
        door.refuse("", times=0)
        await queue.until(queue_id, "done")
    assert tallies[0].done == 1


async def test_a_job_that_goes_on_to_cancel_itself_is_answered(database: Database, queue: Queue, lines: Lines) -> None:
    """What a function has left behind cancels the task of its job while the answer waits; nobody takes that back."""
    let_go = asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def leaves_itself(_task: Task) -> str:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await let_go.wait()
        return "answered"

    stop = asyncio.Event()
    queue_id = await queue.put_one({"type": "left"})
    async with Door(database) as door:
        settings = WorkerOptions(dsn=door.database.dsn, lease_seconds=1)
        working = asyncio.create_task(run_worker(settings, stop, {"left": leaves_itself}))
        await queue.until(queue_id, "leased")
        await cut_off(database, door)
        let_go.set()
        await lines.until("answers_wait")
        tasks[0].cancel()
        await lines.until("answers_wait", count=3)
        door.refuse("", times=0)
        await queue.until(queue_id, "done")
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await working).done == 1


async def test_of_two_answers_to_one_job_the_later_lease_s_counts(database: Database, queue: Queue) -> None:
    """Both leases were this worker's: the first was lost while its answer waited, and the job came back to it."""
    queue_id = await queue.put_one({"type": "held"})
    for _ in range(2):
        await queue.connection.execute("update noetl.queue set status = 'queued' where queue_id = $1", queue_id)
        await queue.connection.execute("select noetl.lease_jobs('me', 1, 600)")
    async with JobDatabase(database.dsn, application_name="noetl-broker worker") as jobs:
        reporter = report.Reporter(jobs, "me")
        answers = [Completion(Lease(queue_id, attempt), str(attempt)) for attempt in (1, 2)]
        sending = asyncio.gather(*(reporter.report(answer) for answer in answers))
        serving = asyncio.create_task(reporter.serve())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await sending == [report.Said.TOO_LATE, report.Said.COUNTED]
        finally:
            serving.cancel()
    assert await queue.events(queue_id) == [("action_completed", 2, None)]


async def test_an_idle_worker_hears_again_as_soon_as_it_can(database: Database, queue: Queue) -> None:
    """It has lost the connection on which it listens, and its next look by itself would be in ten minutes."""
    held, pause = Held(), 600.0
    known = await queue.put_one({"type": "held"})
    async with holding(database, held, poll_min_seconds=pause, poll_max_seconds=pause):
        held.let_go(await held.entered.get())
        await queue.until(known, "done")
        await value(database, TERMINATE.replace("worker%", "worker listener"))
        await until(database, LISTENS)
        after = await queue.put_one({"type": "held"})
        await queue.ring()
        held.let_go(await held.entered.get())
        await queue.until(after, "done")


@pytest.mark.parametrize("kind", ["null", "held"])
async def test_a_worker_looks_once_a_second_for_a_database_that_is_away(
    database: Database, queue: Queue, lines: Lines, kind: str
) -> None:
    """However long that takes: for jobs, to renew leases, and to send answers."""
    held = Held()
    await queue.put({"type": "held"}, number=2 if kind == "held" else 0)
    async with (
        Door(database) as door,
        holding(door.database, held, concurrency=3, lease_seconds=6, null=kind == "null"),
    ):
        await until(database, LISTENS)
        if kind == "held":
            held.let_go(await held.entered.get())
        await cut_off(database, door)
        await lines.until("lease_failed", count=6)
        if kind == "held":
            await lines.until("heartbeat_failed", count=5)
        door.refuse("", times=0)
        if kind == "held":
            held.let_go(await held.entered.get())
    pauses = [line["pause_seconds"] for line in lines.all if "pause_seconds" in line]
    assert 0.5 < max(pauses) <= 1.0
