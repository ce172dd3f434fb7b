"""A worker ends the work of a job that is cancelled, and says so."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from noetl_broker import Job
from noetl_broker.store.worker.jobs import JobDatabase
from noetl_broker.worker.lease_renewal import LeaseRenewal
from tests.chaos.under_load import leave_core
from tests.postgres import Database
from tests.sessions import session
from tests.worker.servers import listening
from tests.worker.test_loop import WAITS, Queue, alive, entered, python, queue, start_pipe, working
from tests.worker.test_sdk import doing

__all__ = ["queue", "start_pipe"]
CANCEL = "update noetl.queue set stop = true where queue_id = $1"
NOTIFY = "select noetl.notify_cancel()"
RUNS = "select true from pg_stat_activity where datname = current_database() and query = $1 and state = 'active'"
SLEEPS = "select pg_sleep(600)"
PATIENCE_SECONDS = 60.0


async def cancel(queue: Queue, queue_id: int) -> None:
    """Mark a job and notify the workers, as the broker does."""
    async with queue.connection.transaction():
        await queue.connection.execute(CANCEL, queue_id)
        await queue.connection.execute(NOTIFY)


async def test_a_cancelled_python_step_is_killed(database: Database, queue: Queue, start_pipe: Path) -> None:
    """The lease is long: the notification ends it, not the next heartbeat. The job is answered."""
    queue_id = await queue.put_one(python(WAITS, start_pipe=str(start_pipe)))
    async with working(database.dsn, lease_seconds=600):
        pid = await entered(start_pipe)
        await cancel(queue, queue_id)
        await queue.until(queue_id, "cancelled")
        assert not alive(pid)
    [(event, result, error)] = await queue.events(queue_id)
    assert (event, result, error["type"]) == ("action_failed", None, "cancelled")


async def test_other_jobs_go_on(database: Database, queue: Queue) -> None:
    """One of two is cancelled."""
    entered = asyncio.Queue[int]()
    release = asyncio.Event()

    async def waits(job: Job) -> int:
        entered.put_nowait(job.args["n"])
        await release.wait()
        return 1

    first, second = [await queue.put_one({"type": "own", "args": {"n": n}}) for n in (1, 2)]
    async with doing(database, waits, concurrency=2, lease_seconds=600):
        assert {await entered.get(), await entered.get()} == {1, 2}
        await cancel(queue, first)
        await queue.until(first, "cancelled")
        release.set()
        await queue.until(second, "done")


async def test_a_cancelled_request_is_closed(database: Database, queue: Queue) -> None:
    """The server never answers."""
    connected, gone = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        connected.set()
        while await reader.read(4096):
            pass
        gone.set()

    async with listening(hang) as port, working(database.dsn, lease_seconds=600), asyncio.timeout(PATIENCE_SECONDS):
        queue_id = await queue.put_one({"type": "http", "url": f"http://127.0.0.1:{port}", "timeout": 600})
        await connected.wait()
        await cancel(queue, queue_id)
        await gone.wait()
        await queue.until(queue_id, "cancelled")


async def test_a_cancelled_statement_ends_on_the_server(database: Database, queue: Queue) -> None:
    """In a transaction, without one, and in a loop on the server; on a connection that was kept."""
    async with session(database) as own, working(database.dsn, lease_seconds=600), asyncio.timeout(PATIENCE_SECONDS):
        for around in ("", "begin;", "do $$ begin loop perform pg_sleep(600); end loop; end $$;"):
            statement = around.rstrip(";") if "loop" in around else SLEEPS
            await queue.until(await queue.put_one({"type": "postgres", "command": "select 1"}), "done")
            queue_id = await queue.put_one({"type": "postgres", "command": around + SLEEPS})
            await until(own, RUNS, statement)
            await cancel(queue, queue_id)
            await queue.until(queue_id, "cancelled")
            await until(own, f"select not exists ({RUNS})", statement)


async def until(own: Any, condition: str, statement: str) -> None:
    """Wait until this is so of a statement on the server."""
    while not await own.fetchval(condition, statement):
        await own.execute("select pg_stat_clear_snapshot()")
        await leave_core()


async def test_an_async_function_is_cancelled(database: Database, queue: Queue) -> None:
    """It sees CancelledError."""
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def waits(_job: Job) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    queue_id = await queue.put_one({"type": "own"})
    async with doing(database, waits, lease_seconds=600), asyncio.timeout(PATIENCE_SECONDS):
        await entered.wait()
        await cancel(queue, queue_id)
        await queue.until(queue_id, "cancelled")
        assert cancelled.is_set()


async def test_a_plain_function_can_ask_whether_it_is_cancelled(database: Database, queue: Queue) -> None:
    """Its thread cannot be ended; `job.cancelled` is set."""
    entered, left = threading.Event(), threading.Event()

    def waits(job: Job) -> None:
        entered.set()
        job.cancelled.wait()
        left.set()

    queue_id = await queue.put_one({"type": "own"})
    async with doing(database, waits, lease_seconds=600):
        assert await asyncio.to_thread(entered.wait, PATIENCE_SECONDS)
        await cancel(queue, queue_id)
        await queue.until(queue_id, "cancelled")
        assert await asyncio.to_thread(left.wait, PATIENCE_SECONDS)


async def test_a_job_that_is_cancelled_while_it_is_leased_is_ended(
    database: Database, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notification comes before the worker knows its job."""
    fetch, renew, looked = JobDatabase.fetch, LeaseRenewal._renew_all, asyncio.Event()

    async def look(self: LeaseRenewal, **options: Any) -> None:
        await renew(self, **options)
        looked.set()

    async def lease_and_cancel(self: JobDatabase, statement: str, *arguments: Any, **options: Any) -> list[Any]:
        found = await fetch(self, statement, *arguments, **options)
        if "lease_jobs" in statement and found:
            await looked.wait()  # the one after the worker's start
            looked.clear()
            await cancel(queue, found[0]["queue_id"])
            await looked.wait()
        return found

    async def waits(_job: Job) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(JobDatabase, "fetch", lease_and_cancel)
    monkeypatch.setattr(LeaseRenewal, "_renew_all", look)
    queue_id = await queue.put_one({"type": "own"})
    async with doing(database, waits, lease_seconds=600):
        await queue.until(queue_id, "cancelled")


async def test_a_cancel_that_was_not_heard_is_found_after_a_new_connection(database: Database, queue: Queue) -> None:
    """The worker has no room, and its connection was cut."""
    entered = asyncio.Event()

    async def waits(_job: Job) -> None:
        entered.set()
        await asyncio.Event().wait()

    queue_id = await queue.put_one({"type": "own"})
    async with doing(database, waits, lease_seconds=600, concurrency=1), asyncio.timeout(PATIENCE_SECONDS):
        await entered.wait()
        async with queue.connection.transaction():
            await queue.connection.execute(CANCEL, queue_id)
            await queue.connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and application_name like '%worker listener%'"
            )
        await queue.until(queue_id, "cancelled")
