"""An answer reaches the database in spite of heartbeats, expired leases and outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from noetl_broker import logs
from noetl_broker.store.worker.jobs import Completion, JobDatabase, Lease
from noetl_broker.worker import WorkerOptions, lease_renewal, loop, reporter, run_worker
from noetl_broker.worker.logger import Log
from noetl_broker.worker.stats import Stats
from noetl_broker.worker.tools.task import Task
from tests.brokers import value
from tests.chaos.refusing_proxy import FOR_EVER, RefusingProxy
from tests.chaos.silent_proxy import SilentProxy
from tests.chaos.under_load import until
from tests.postgres import Database
from tests.worker.test_loop import PATIENCE_SECONDS, Queue, queue

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
    select count(pg_terminate_backend(pid, 30000)) -- waits for the end of each
    from pg_stat_activity
    where datname = current_database() and application_name like 'noetl-broker worker%'"""
LISTENS = """
    select exists (
      select
      from pg_stat_activity
      where datname = current_database() and application_name like '% worker listener%' and query ilike 'listen%'
    )"""
RAN_OUT = "select lease_until < clock_timestamp() - interval '0.5 s' from noetl.queue where queue_id = $1"
STATE = "select (status, attempts)::text from noetl.queue where queue_id = $1"


class Held:
    """A tool whose jobs report their start, and end when the test lets them."""

    def __init__(self) -> None:
        """Hold all jobs."""
        self.entered: asyncio.Queue[int] = asyncio.Queue()
        self._go: dict[int, asyncio.Event] = {}

    async def run(self, task: Task) -> int:
        """Wait until the test lets the job go."""
        queue_id = task.job.queue_id
        self.entered.put_nowait(queue_id)
        await self._go.setdefault(queue_id, asyncio.Event()).wait()
        return queue_id

    def let_go(self, queue_id: int) -> None:
        """Let one job end."""
        self._go.setdefault(queue_id, asyncio.Event()).set()


class Lines:
    """The log lines of the worker, in order."""

    def __init__(self) -> None:
        """Start without lines."""
        self.all: list[dict[str, Any]] = []
        self._came = asyncio.Event()

    def take(self, _logger: object, _method: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """Record a line, and write it nowhere."""
        self.all.append(dict(line))
        self._came.set()
        raise structlog.DropEvent

    def of(self, *events: str) -> list[tuple[Any, Any]]:
        """Give event and job of the lines with these events."""
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
    for module in (loop, reporter, lease_renewal):
        monkeypatch.setattr(module, "log", Log("test"))
    yield own
    structlog.reset_defaults()
    logs.configure(level="error", form="console")


@asynccontextmanager
async def holding(database: Database, held: Held, **options: Any) -> AsyncIterator[tuple[asyncio.Event, list[Stats]]]:
    """Run a worker on jobs of the type `held`; gives its stop event, and its tally at the end."""
    stop, tallies = asyncio.Event(), list[Stats]()
    settings = WorkerOptions(
        dsn=database.dsn, schema=database.schema, **{"poll_max_seconds": 0.2, "lease_seconds": 3, **options}
    )
    task = asyncio.create_task(run_worker(settings, stop, {"held": held.run}))
    try:
        yield stop, tallies
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            tallies.append(await task)


def cut_off(proxy: RefusingProxy) -> None:
    """Close the worker's connections, those in the making too, and refuse new ones."""
    proxy.refuse("57P03", times=FOR_EVER)
    proxy.cut()


async def test_a_heartbeat_during_an_answer_does_not_kill_the_job(
    database: Database, queue: Queue, lines: Lines
) -> None:
    """The job is done, so the heartbeat fails; the answer counts."""
    await queue.connection.execute(WARN)
    held = Held()
    first, second = await queue.put({"type": "held"}, number=2)
    async with (
        SilentProxy(database, holds=KEPT.encode()) as proxy,
        holding(proxy.database, held, concurrency=2) as (_, tallies),
    ):
        assert {await held.entered.get(), await held.entered.get()} == {first, second}
        held.let_go(first)
        await queue.until(first, "done")
        await proxy.held.wait()
        for _ in range(2):  # heartbeats of both jobs; the last one began after the first job was done
            queue.forget()
            await queue.until(second, "leased")
        proxy.release_answers()
        held.let_go(second)
        await queue.until(second, "done")
    assert (tallies[0].leased, tallies[0].done) == (2, 2)
    assert lines.of("answer_lost", "answer_too_late", "answer_not_sent", "job_killed") == []


async def test_an_answer_is_sent_after_the_end_of_its_lease(database: Database, queue: Queue, lines: Lines) -> None:
    """The outage was longer. No other worker took the job, so the work is not repeated."""
    held = Held()
    queue_id = await queue.put_one({"type": "held"})
    async with RefusingProxy(database) as proxy, holding(proxy.database, held) as (_, tallies):
        await held.entered.get()
        cut_off(proxy)
        held.let_go(queue_id)
        await lines.until("answers_wait")
        await until(database, RAN_OUT, queue_id)
        proxy.refuse("", times=0)
        await queue.until(queue_id, "done")
    assert await value(database, STATE, queue_id) == "(done,1)"
    assert tallies[0].done == 1
    assert lines.of("job_ended", "answer_lost", "job_killed") == [("job_ended", queue_id)]


async def test_an_answer_that_is_too_late_is_logged(database: Database, queue: Queue, lines: Lines) -> None:
    """Another worker has the job: the database refuses the answer."""
    held = Held()
    queue_id = await queue.put_one({"type": "held"})
    async with RefusingProxy(database) as proxy, holding(proxy.database, held) as (_, tallies):
        await held.entered.get()
        cut_off(proxy)
        held.let_go(queue_id)
        await lines.until("answers_wait")
        await until(database, RAN_OUT, queue_id)
        await queue.connection.execute("select noetl.reap(10, 5)")
        await queue.connection.execute("select noetl.lease_jobs('other', 1, 600)")
        proxy.refuse("", times=0)
        await lines.until("answer_too_late")
    assert await value(database, STATE, queue_id) == "(leased,2)"
    assert tallies[0].done == 0
    assert lines.of("answer_too_late", "job_ended", "answer_lost") == [("answer_too_late", queue_id)]


async def test_a_slot_is_used_until_its_answer_is_sent(database: Database, queue: Queue, lines: Lines) -> None:
    """So at most `concurrency` answers wait."""
    held = Held()
    first, second = await queue.put({"type": "held"}, number=2)
    async with RefusingProxy(database) as proxy, holding(proxy.database, held, concurrency=1):
        assert await held.entered.get() == first
        proxy.refuse("57P03", times=FOR_EVER, named="noetl-broker worker")
        await value(database, TERMINATE)
        held.let_go(first)
        await lines.until("answers_wait", count=3)
        assert (held.entered.empty(), await queue.status(second)) == (True, "queued")
        proxy.refuse("", times=0)
        assert await held.entered.get() == second
        assert await queue.status(first) == "done"
        held.let_go(second)
        await queue.until(second, "done")


async def test_a_stop_logs_answers_that_were_not_sent(database: Database, queue: Queue, lines: Lines) -> None:
    """After the drain time. The job is repeated after its lease."""
    held = Held()
    queue_id = await queue.put_one({"type": "held"})
    async with RefusingProxy(database) as proxy:
        async with holding(proxy.database, held, drain_seconds=0.3) as (stop, tallies):
            await held.entered.get()
            cut_off(proxy)
            held.let_go(queue_id)
            await lines.until("answers_wait")
            stop.set()
        assert lines.of("answer_not_sent", "job_ended", "answer_lost") == [("answer_not_sent", queue_id)]
    assert tallies[0].done == 0
    [line] = [line for line in lines.all if line["event"] == "answer_not_sent"]
    assert "the database system is starting up" in line["error"]
    assert await value(database, STATE, queue_id) == "(leased,1)"


async def test_a_stop_waits_for_answers_within_the_drain_time(database: Database, queue: Queue, lines: Lines) -> None:
    """The database comes back in that time."""
    held = Held()
    queue_id = await queue.put_one({"type": "held"})
    async with RefusingProxy(database) as proxy, holding(proxy.database, held) as (stop, tallies):
        await held.entered.get()
        cut_off(proxy)
        held.let_go(queue_id)
        await lines.until("answers_wait")
        stop.set()
        await lines.until("worker_draining")
        proxy.refuse("", times=0)
        await queue.until(queue_id, "done")
    assert tallies[0].done == 1


async def test_a_job_that_cancels_itself_later_is_answered(database: Database, queue: Queue, lines: Lines) -> None:
    """The function's code cancels its task while the answer waits."""
    entered, let_go = asyncio.Event(), asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def leaves_itself(_task: Task) -> str:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        entered.set()
        await let_go.wait()
        return "answered"

    stop = asyncio.Event()
    queue_id = await queue.put_one({"type": "left"})
    async with RefusingProxy(database) as proxy:
        settings = WorkerOptions(dsn=proxy.database.dsn, schema=proxy.database.schema, lease_seconds=3)
        working = asyncio.create_task(run_worker(settings, stop, {"left": leaves_itself}))
        await entered.wait()
        cut_off(proxy)
        let_go.set()
        await lines.until("answers_wait")
        tasks[0].cancel()
        await lines.until("answers_wait", count=3)
        proxy.refuse("", times=0)
        await queue.until(queue_id, "done")
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await working).done == 1


async def test_the_answer_of_the_later_lease_counts(database: Database, queue: Queue) -> None:
    """This worker had both leases: it lost the first while its answer waited."""
    queue_id = await queue.put_one({"type": "held"})
    for _ in range(2):
        await queue.connection.execute("update noetl.queue set status = 'queued' where queue_id = $1", queue_id)
        await queue.connection.execute("select noetl.lease_jobs('me', 1, 600)")
    async with JobDatabase(database, application_name="noetl-broker worker") as jobs:
        sender = reporter.Reporter(jobs, "me")
        answers = [Completion(Lease(queue_id, attempt), str(attempt)) for attempt in (1, 2)]
        sending = asyncio.gather(*(sender.report(answer) for answer in answers))
        serving = asyncio.create_task(sender.run())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await sending == [reporter.Receipt.TOO_LATE, reporter.Receipt.COUNTED]
        finally:
            serving.cancel()
    assert await queue.events(queue_id) == [("action_completed", 2, None)]


async def test_an_idle_worker_listens_again_after_a_lost_connection(database: Database, queue: Queue) -> None:
    """Its next poll would be in ten minutes."""
    held, pause = Held(), 600.0
    known = await queue.put_one({"type": "held"})
    async with holding(database, held, poll_min_seconds=pause, poll_max_seconds=pause):
        held.let_go(await held.entered.get())
        await queue.until(known, "done")
        await value(database, TERMINATE.replace("worker%", "worker listener"))
        await until(database, LISTENS)
        after = await queue.put_one({"type": "held"})
        await queue.notify()
        held.let_go(await held.entered.get())
        await queue.until(after, "done")


@pytest.mark.parametrize("kind", ["null", "held"])
async def test_a_worker_tries_to_reach_the_database_every_second(
    database: Database, queue: Queue, lines: Lines, kind: str
) -> None:
    """To lease jobs, to renew leases, and to send answers."""
    held = Held()
    await queue.put({"type": "held"}, number=2 if kind == "held" else 0)
    async with (
        RefusingProxy(database) as proxy,
        holding(proxy.database, held, concurrency=3, lease_seconds=9, null=kind == "null"),
    ):
        await until(database, LISTENS)
        entered = await held.entered.get() if kind == "held" else None
        cut_off(proxy)
        if entered is not None:
            held.let_go(entered)  # its answer waits, so its lease is renewed for as long
        await lines.until("lease_failed", count=6)
        if kind == "held":
            await lines.until("heartbeat_failed", count=2)
        proxy.refuse("", times=0)
        if kind == "held":
            held.let_go(await held.entered.get())
    pauses = [line["pause_seconds"] for line in lines.all if "pause_seconds" in line]
    assert 0.5 < max(pauses) <= 1.0
