"""Logs of running attempts reach the database: in batches, before their answers, and also of those that are killed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from noetl_broker.errors import DatabaseFault
from noetl_broker.store.worker import jobs
from noetl_broker.store.worker.jobs import Lease, LogPart
from noetl_broker.worker import log_sender
from noetl_broker.worker.log_sender import LogSender
from noetl_broker.worker.redaction import Redactor
from tests.brokers import PATIENCE_SECONDS, execute, rows, value
from tests.chaos.under_load import leave_core
from tests.postgres import Database
from tests.worker.test_loop import WAITS, Queue, entered, python, queue, start_pipe, working

__all__ = ["queue", "start_pipe"]
KEPT = "select attempt, level, message from noetl.log order by node_id, attempt, ordinal"
BOUNDED = """
select count(*), bool_and(l.bytes <= 65536), bool_and(l.starts), bool_and(l.ends)
from (
  select sum(octet_length(message)) as bytes, bool_or(message like 'line 000000%') as starts,
    bool_or(message like '%line 007999' || chr(10)) as ends
  from noetl.log
  group by node_id
) l"""
OF_WORKERS = """
select count(*) from pg_stat_activity
where datname = current_database() and starts_with(application_name, 'noetl-broker')"""
COSTS = """
select
  exists (select from pg_stat_user_functions where funcname = 'log_job'),
  exists (
    select from pg_statio_user_tables
    where starts_with(relname, 'log') and heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit + idx_blks_read, 0) > 0
  )"""
PRINTS = "import os\nprint('early')\n" + WAITS


async def until_kept(database: Database, text: str) -> None:
    """Wait for a row of the log."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await value(database, "select exists (select from noetl.log where message like $1)", f"%{text}%"):
            await leave_core()


async def test_output_is_complete_when_the_job_has_ended(database: Database, queue: Queue) -> None:
    """Of both streams, and of a process that the step started."""
    code = "import os, sys\ndef main():\n  print('a')\n  os.system('echo b; echo c >&2')\n  sys.stderr.write('d')"
    async with working(database.dsn):
        await queue.until(await queue.put_one(python(code)), "done")
    kept = await rows(database, KEPT)
    assert {level for _, level, _ in kept} == {"info"}  # also of stderr, to which `logging` writes all levels
    assert sorted("".join(message for *_, message in kept).split()) == ["a", "b", "c", "d"]


async def test_output_of_a_failed_and_of_a_cut_off_attempt_is_kept(
    database: Database, queue: Queue, start_pipe: Any
) -> None:
    """With the attempt that printed it."""
    async with working(database.dsn):
        await queue.until(await queue.put_one(python("print('bad')\nraise ValueError")), "failed")
        late = python(PRINTS, start_pipe=str(start_pipe)) | {"timeout": 5}  # it has begun by then
        queue_id = await queue.put_one(late)
        await entered(start_pipe)
        await queue.until(queue_id, "failed")
    assert await rows(database, KEPT) == [(1, "info", "bad\n"), (1, "info", "early\n")]


async def test_output_is_kept_while_the_step_runs(database: Database, queue: Queue, start_pipe: Any) -> None:
    """So a worker that is killed later leaves it. A worker that stops gives the rest."""
    async with working(database.dsn, drain_seconds=0.1):
        await queue.put_one(python(PRINTS, start_pipe=str(start_pipe)))
        await entered(start_pipe)
        await until_kept(database, "early")
        assert await value(database, "select status from noetl.queue") == "leased"


async def test_output_of_a_cancelled_job_is_kept(database: Database, queue: Queue, start_pipe: Any) -> None:
    """Also what came after the last batch."""
    async with working(database.dsn, lease_seconds=3):
        queue_id = await queue.put_one(python(PRINTS, start_pipe=str(start_pipe)))
        await entered(start_pipe)
        await execute(database, "update noetl.queue set stop = true")
        await execute(database, "notify noetl_cancel")
        await queue.until(queue_id, "cancelled")
    assert await rows(database, KEPT) == [(1, "info", "early\n")]


async def test_a_database_that_takes_no_logs_gets_the_answers(database: Database, queue: Queue) -> None:
    """Its schema is older, or the login lacks the right."""
    await execute(database, "drop function noetl.log_job")
    async with working(database.dsn):
        for _ in range(2):
            await queue.until(await queue.put_one(python("print('x')\nresult = 1")), "done")
    assert await rows(database, KEPT) == []


async def test_a_lost_answer_adds_nothing_twice(
    database: Database, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker sends the same parts again."""
    calls: list[list[LogPart]] = []

    async def lose_the_first(database: jobs.JobDatabase, worker_id: str, parts: list[LogPart]) -> dict[int, bool]:
        answer = await jobs.log_jobs(database, worker_id, parts)
        calls.append([*parts])
        if len(calls) == 1:
            raise DatabaseFault("the connection was lost")
        return answer

    monkeypatch.setattr(log_sender, "log_jobs", lose_the_first)
    async with working(database.dsn):
        await queue.until(await queue.put_one(python("print('x')\nresult = 1")), "done")
    assert (calls[0], len(calls)) == (calls[1], 2)
    assert await rows(database, KEPT) == [(1, "info", "x\n")]


async def test_fifty_attempts_that_print_much_are_kept_and_bounded(database: Database, queue: Queue) -> None:
    """Each prints 8,000 lines: a few calls, and 64 KiB of each."""
    code = "def main():\n  for n in range(8000):\n    print(f'line {n:06}')"
    async with working(database.dsn, concurrency=50):
        for queue_id in await queue.put(python(code), number=50):
            await queue.until(queue_id, "done")
    assert await rows(database, BOUNDED) == [(50, True, True, True)]


async def test_an_attempt_that_ends_while_its_log_is_sent_waits_no_longer(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The call in progress has all its lines; the end is noticed in the next round."""
    called, answer = asyncio.Event(), asyncio.Event()

    async def log_jobs(database: jobs.JobDatabase, worker_id: str, parts: list[LogPart]) -> dict[int, bool]:
        called.set()
        await answer.wait()
        return await jobs.log_jobs(database, worker_id, parts)

    monkeypatch.setattr(log_sender, "log_jobs", log_jobs)
    monkeypatch.setattr(log_sender, "SEND_SECONDS", 0.0)
    async with jobs.JobDatabase(database, application_name="test") as connections:
        sender = LogSender(connections, "w1")
        sending = asyncio.create_task(sender.run())
        job_log = sender.open(Lease(7, 1), Redactor({}, None))
        job_log.output("info").write(b"x\n")
        await called.wait()
        finishing = asyncio.create_task(sender.finish(job_log))
        await asyncio.sleep(0)  # it waits now
        answer.set()
        await finishing
        sending.cancel()
    assert caplog.messages == []


@pytest.mark.parametrize("prints", [False, True])
async def test_only_output_costs_a_log(database: Database, queue: Queue, *, prints: bool) -> None:
    """Of jobs that print nothing, no statement of the worker logs, or reads a page of the table."""
    await execute(database, f"alter database {database.name} set track_functions = 'all'")
    async with working(database.dsn):
        for queue_id in await queue.put(python(f"def main(): {'print(1)' if prints else 'return 1'}"), number=5):
            await queue.until(queue_id, "done")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await value(database, OF_WORKERS):  # a session counts before it ends
            await leave_core()
    assert await rows(database, COSTS) == [(prints, prints)]
