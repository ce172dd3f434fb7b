"""Beside a NoETL server: who owns retries, what its job status means, and how long a job may take."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import Any

import pytest

from noetl_broker.broker.model.rules import Rules
from tests.brokers import drain, rows, value
from tests.noetl import (
    DEAD,
    RETRIED,
    RETRY,
    STEP,
    NoETL,
    ended,
    fail_task,
    fails_until,
    reap_ended_jobs,
    run,
    verify_faults,
)
from tests.postgres import Database
from tests.sessions import blocked, session


async def test_a_worker_that_owns_retries_decides_about_them(noetl: NoETL, noetl_database: Database) -> None:
    """`retry` in the row repeats the job when the worker says, also where its errors are lost. The broker counts."""
    await noetl.register(RETRIED)
    noetl.tasks["a"] = fails_until(3)
    noetl.lost = ("action_error",)
    await noetl.start(9)
    await run(noetl, noetl_database, rules=Rules(retry_owner="worker"))
    assert await ended(noetl) == [("COMPLETED", {"attempt": 3}, None)]
    ours = "select count(*) from noetl.event where meta ? 'turn' and event_type = 'action_retry'"
    assert await value(noetl_database, ours) == 0
    assert await verify_faults(noetl) == {}


async def test_an_error_is_decided_when_the_row_is_dead(noetl: NoETL, noetl_database: Database) -> None:
    """Two errors are recorded; then `dead` decides at once, with the recorded error."""
    await noetl.register(RETRIED)
    await noetl.start(9)
    await drain(noetl_database, rules=Rules(retry_owner="worker"))
    job = await noetl.lease()
    assert job is not None
    for _ in range(2):
        await noetl.report(job, "action_error", {"status": "error"}, error="boom")
    await drain(noetl_database)
    assert await rows(noetl_database, "select outcome from noetl.turn where turn > 1") == [("recorded",), ("recorded",)]
    assert await value(noetl_database, "select status from noetl.queue") == "leased"
    await noetl.connection.execute("update noetl.queue set status = 'dead' where queue_id = $1", job.queue_id)
    assert await verify_faults(noetl) == {}
    assert await reap_ended_jobs(noetl, 0) == 1
    await drain(noetl_database)
    assert await ended(noetl) == [("FAILED", None, "boom")]
    assert await verify_faults(noetl) == {}


async def test_a_dead_job_without_an_error_is_decided_after_the_grace(noetl: NoETL, noetl_database: Database) -> None:
    """The error may still come; after the grace the row decides, and its reason says so."""
    await noetl.register(RETRIED)
    noetl.tasks["a"] = lambda job: fail_task(f"attempt {job.attempts}")
    noetl.retries, noetl.lost = False, {"action_error"}
    await noetl.start(9)
    await drain(noetl_database, rules=Rules(retry_owner="worker"))
    await noetl.work()
    assert await reap_ended_jobs(noetl, 0) == 0
    assert await reap_ended_jobs(noetl) == 1
    await drain(noetl_database)
    assert await ended(noetl) == [("FAILED", None, "its job was set to dead, and no event says why")]


@pytest.mark.parametrize("word, lost", [("retry", ("action_error",)), ("dead", ())], ids=str)
async def test_a_broker_that_owns_retries_ignores_the_workers_decision(
    noetl: NoETL, noetl_database: Database, word: str, lost: Container[str]
) -> None:
    """`retry` and `dead` both mean that the attempt failed; the step's `retry` decides when the next one is due."""
    await noetl.register(RETRIED)
    noetl.tasks["a"] = fails_until(3)
    noetl.retries, noetl.lost = word == "retry", lost
    await noetl.start(9)
    await drain(noetl_database)
    await noetl.work()
    assert await value(noetl_database, "select status from noetl.queue") == "failed"
    await drain(noetl_database)
    await reap_ended_jobs(noetl)
    await drain(noetl_database)
    due = "select status, round(date_part('epoch', available_at - now())) between 18 and 20 from noetl.queue"
    assert await rows(noetl_database, due) == [("retry", True)]
    await run(noetl, noetl_database)
    assert await ended(noetl) == [("COMPLETED", {"attempt": 3}, None)]
    assert await verify_faults(noetl) == {}


@pytest.mark.parametrize("word", ["retry", "dead", "done"])
async def test_an_earlier_decision_of_the_broker_stands(noetl: NoETL, noetl_database: Database, word: str) -> None:
    """The event is read before that server sets the row."""
    await noetl.register(RETRIED)
    await noetl.start(9)
    await drain(noetl_database)
    job = await noetl.lease()
    assert job is not None
    await noetl.report(job, "action_error", {}, error="boom")
    await drain(noetl_database)
    before = await rows(noetl_database, "select status, available_at, lease_until from noetl.queue")
    await noetl.connection.execute(
        "update noetl.queue set status = $2, available_at = now() + interval '1 day' where queue_id = $1",
        job.queue_id, word,
    )  # fmt: skip
    assert await rows(noetl_database, "select status, available_at, lease_until from noetl.queue") == before
    assert before[0][0] == "retry"
    assert await verify_faults(noetl) == {}


async def test_a_status_change_waits_for_a_decision_that_is_being_written(
    noetl: NoETL, noetl_database: Database
) -> None:
    """The broker has locked the row. After its commit the decision is kept."""
    await noetl.register(RETRIED)
    await noetl.start(9)
    await drain(noetl_database)
    job = await noetl.lease()
    assert job is not None
    async with session(noetl_database) as broker, session(noetl_database) as watcher:
        async with broker.transaction():
            await broker.execute("select set_config('noetl.writer', 'broker', true)")
            await broker.execute("update noetl.queue set status = 'retry'")
            late = asyncio.create_task(noetl.connection.execute(DEAD, job.queue_id))
            await blocked(watcher)
        await late
    assert await value(noetl_database, "select status from noetl.queue") == "retry"
    assert await value(noetl_database, "select count(*) from noetl.ended_job") == 0


async def test_a_job_of_an_ended_execution_is_not_retried(noetl: NoETL, noetl_database: Database) -> None:
    """The row is cancelled, so no worker leases it."""
    await noetl.register(RETRIED)
    await noetl.start(9)
    await drain(noetl_database, rules=Rules(retry_owner="worker"))
    job = await noetl.lease()
    assert job is not None
    await noetl.connection.fetchval("select noetl.cancel_execution(9)")
    await drain(noetl_database)
    await noetl.fail(job, "boom")
    assert await value(noetl_database, "select status from noetl.queue") == "cancelled"
    await drain(noetl_database)
    assert await verify_faults(noetl) == {}


@pytest.mark.parametrize("first", ["the server", "the broker"])
async def test_a_job_set_to_retry_during_a_cancel_is_not_retried(
    noetl: NoETL, noetl_database: Database, first: str
) -> None:
    """Neither transaction sees the other; the reaper sees both."""
    await noetl.register(RETRIED)
    await noetl.start(9)
    await drain(noetl_database, rules=Rules(retry_owner="worker"))
    job = await noetl.lease()
    assert job is not None
    async with session(noetl_database) as server, session(noetl_database) as broker:
        await server.execute("begin")
        await server.execute(RETRY, job.queue_id, 0.0)
        await broker.execute("begin")
        await broker.execute("select set_config('noetl.writer', 'broker', true)")
        await broker.execute("update noetl.execution set status = 'CANCELLED'")  # sees no job to cancel
        await (server if first == "the server" else broker).execute("commit")
        await noetl.connection.execute("select noetl.reap_ended_jobs(9, 30)")
        await (broker if first == "the server" else server).execute("commit")
    assert await value(noetl_database, "select status from noetl.queue") == "retry"
    await noetl.connection.execute("select noetl.reap_ended_jobs(9, 30)")
    assert await value(noetl_database, "select status from noetl.queue") == "cancelled"
    await reap_ended_jobs(noetl)
    assert await value(noetl_database, "select count(*) from noetl.ended_job") == 0


async def test_a_job_of_a_cancelled_item_is_not_retried(noetl: NoETL, noetl_database: Database) -> None:
    """Another item failed, and the step went on without it."""
    await noetl.register(
        """
        workflow:
        - step: start
          next: each
        - step: each
          type: python
          code: x
          on_error: continue
          loop: {collection: "{{ [1, 2] }}", element: one, mode: async, distribute: true}
          next: last
        - {step: last, type: python, code: x, next: end}
        - {step: end}
        """
    )
    await noetl.start(9)
    await drain(noetl_database, rules=Rules(retry_owner="worker"))
    failing, held = await noetl.lease(), await noetl.lease()
    assert failing is not None
    assert held is not None
    noetl.retries = False
    await noetl.fail(failing, "boom")
    await drain(noetl_database)
    await reap_ended_jobs(noetl, 0)
    await drain(noetl_database)
    await noetl.connection.execute(RETRY, held.queue_id, 0.0)
    await reap_ended_jobs(noetl, 0)
    status = "select status from noetl.queue where queue_id = $1"
    assert await value(noetl_database, status, held.queue_id) == "cancelled"
    noetl.tasks["last"] = lambda _: 1
    await run(noetl, noetl_database)
    assert await ended(noetl) == [("COMPLETED", 1, None)]
    assert await verify_faults(noetl) == {}


async def test_a_timeout_counts_from_the_lease_of_the_noetl_server(noetl: NoETL, noetl_database: Database) -> None:
    """The broker fails the attempt, also if the worker owns retries. The late answer changes nothing."""
    await noetl.register(STEP.replace("code: x", "code: x, timeout: 30"))
    await noetl.start(9)
    await drain(noetl_database, rules=Rules(retry_owner="worker"))
    job = await noetl.lease()
    assert job is not None
    await noetl.connection.execute("update noetl.queue set first_leased_at = first_leased_at - interval '31 s'")
    assert await value(noetl_database, "select timed_out from noetl.reap(9, 5)") == 1
    await noetl.fail(job, "too late")
    assert await value(noetl_database, "select status from noetl.queue") == "failed"
    await drain(noetl_database)
    assert await ended(noetl) == [("FAILED", None, "timeout: the action ran longer than 30 s")]
    assert await verify_faults(noetl) == {}


async def test_each_attempt_of_the_noetl_worker_has_its_full_timeout(noetl: NoETL, noetl_database: Database) -> None:
    """A retry does not share the first attempt's time."""
    await noetl.register(RETRIED.replace("code: x", "code: x, timeout: 30"))
    await noetl.start(9)
    await drain(noetl_database, rules=Rules(retry_owner="worker"))
    job = await noetl.lease()
    assert job is not None
    await noetl.connection.execute("update noetl.queue set first_leased_at = first_leased_at - interval '31 s'")
    await noetl.fail(job, "boom")
    assert await noetl.lease(due_in=1000.0) is not None
    assert await value(noetl_database, "select timed_out from noetl.reap(9, 5)") == 0


async def test_the_owner_of_retries_is_pinned_at_the_start(noetl: NoETL, noetl_database: Database) -> None:
    """A daemon with another setting uses the pinned one."""
    await noetl.register(RETRIED)
    await noetl.start(9)
    await drain(noetl_database, rules=Rules(retry_owner="worker"))
    job = await noetl.lease()
    assert job is not None
    await noetl.report(job, "action_error", {}, error="boom")
    await drain(noetl_database, rules=Rules(retry_owner="broker"))
    assert await value(noetl_database, "select outcome from noetl.turn where turn = 2") == "recorded"


@pytest.mark.parametrize(
    "call, end",
    [
        ("noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"boom\"}')", ("FAILED", None, "boom")),
        ("noetl.complete_job(queue_id, 'w', attempts, '1')", ("COMPLETED", 1, None)),
    ],
)
async def test_an_answer_of_our_own_worker_needs_no_row_of_the_server(
    noetl: NoETL, noetl_database: Database, call: str, end: tuple[Any, ...]
) -> None:
    """Our functions write job row and event together, so nothing waits for later."""
    await noetl.register(STEP)
    await noetl.start(9)
    await drain(noetl_database, rules=Rules(retry_owner="worker"))
    await noetl.connection.fetch(f"select {call} from noetl.lease_jobs('w')")
    assert await value(noetl_database, "select count(*) from noetl.ended_job") == 0
    await drain(noetl_database)
    assert await ended(noetl) == [end]
