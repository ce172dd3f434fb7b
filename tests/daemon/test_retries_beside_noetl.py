"""Beside a NoETL server: who decides about retries, what its word about a job is worth, and how long a job may take."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import Any

import pytest

from noetl_broker.broker.model import Rules
from tests.brokers import drain, rows, value
from tests.noetl import (
    DEAD,
    RETRIED,
    RETRY,
    STEP,
    NoETL,
    boom,
    ended,
    fails_until,
    faults,
    overlook,
    run,
)
from tests.postgres import Database
from tests.sessions import blocked, session


@pytest.mark.parametrize("lost", [(), ("action_error",)], ids=str)
async def test_the_worker_decides_about_retries_where_it_owns_them(
    noetl: NoETL, empty_database: Database, lost: Container[str]
) -> None:
    """`retry` in the row has the job run again at the worker's time; the broker counts nothing and writes nothing."""
    await noetl.register(RETRIED)
    noetl.tasks["a"] = fails_until(3)
    noetl.lost = lost
    await noetl.start(9)
    await run(noetl, empty_database, rules=Rules(retry_owner="worker"))
    assert await ended(noetl) == [("COMPLETED", {"attempt": 3}, None)]
    ours = "select count(*) from noetl.event where meta ? 'turn' and event_type = 'action_retry'"
    assert await value(empty_database, ours) == 0
    assert await faults(noetl) == {}


async def test_an_error_decides_nothing_until_the_row_does(noetl: NoETL, empty_database: Database) -> None:
    """Sent twice, it is recorded twice; then `dead` decides, at once and with the error that was told."""
    await noetl.register(RETRIED)
    await noetl.start(9)
    await drain(empty_database, rules=Rules(retry_owner="worker"))
    job = await noetl.lease()
    assert job is not None
    for _ in range(2):
        await noetl.report(job, "action_error", {"status": "error"}, error="boom")
    await drain(empty_database)
    assert await rows(empty_database, "select outcome from noetl.turn where turn > 1") == [("recorded",), ("recorded",)]
    assert await value(empty_database, "select status from noetl.queue") == "leased"
    await noetl.connection.execute("update noetl.queue set status = 'dead' where queue_id = $1", job.queue_id)
    assert await faults(noetl) == {}
    assert await overlook(noetl, 0) == 1
    await drain(empty_database)
    assert await ended(noetl) == [("FAILED", None, "boom")]
    assert await faults(noetl) == {}


async def test_a_dead_job_of_the_workers_without_an_error_is_waited_for(noetl: NoETL, empty_database: Database) -> None:
    """The error may be on its way; past the grace the row alone decides, and says that no event did."""
    await noetl.register(RETRIED)
    noetl.tasks["a"] = lambda job: boom(f"attempt {job.attempts}")
    noetl.retries, noetl.lost = False, {"action_error"}
    await noetl.start(9)
    await drain(empty_database, rules=Rules(retry_owner="worker"))
    await noetl.work()
    assert await overlook(noetl, 0) == 0
    assert await overlook(noetl) == 1
    await drain(empty_database)
    assert await ended(noetl) == [("FAILED", None, "its job was set to dead, and no event says why")]


@pytest.mark.parametrize("lost", [(), ("action_error",)], ids=str)
@pytest.mark.parametrize("word", ["retry", "dead"])
async def test_the_broker_decides_about_retries_whatever_that_worker_says(
    noetl: NoETL, empty_database: Database, word: str, lost: Container[str]
) -> None:
    """`retry` and `dead` in the row both mean that the attempt failed; the step's own `retry` says when it is due."""
    await noetl.register(RETRIED)
    noetl.tasks["a"] = fails_until(3)
    noetl.retries, noetl.lost = word == "retry", lost
    await noetl.start(9)
    await drain(empty_database)
    await noetl.work()
    assert await value(empty_database, "select status from noetl.queue") == "failed"
    await drain(empty_database)
    await overlook(noetl)
    await drain(empty_database)
    due = "select status, round(date_part('epoch', available_at - now())) between 18 and 20 from noetl.queue"
    assert await rows(empty_database, due) == [("retry", True)]
    await run(noetl, empty_database)
    assert await ended(noetl) == [("COMPLETED", {"attempt": 3}, None)]
    assert await faults(noetl) == {}


@pytest.mark.parametrize("word", ["retry", "dead", "done"])
async def test_what_the_broker_decided_first_stands(noetl: NoETL, empty_database: Database, word: str) -> None:
    """The event is read before that server sets the row: its word comes too late, and changes nothing."""
    await noetl.register(RETRIED)
    await noetl.start(9)
    await drain(empty_database)
    job = await noetl.lease()
    assert job is not None
    await noetl.report(job, "action_error", {}, error="boom")
    await drain(empty_database)
    before = await rows(empty_database, "select status, available_at, lease_until from noetl.queue")
    await noetl.connection.execute(
        "update noetl.queue set status = $2, available_at = now() + interval '1 day' where queue_id = $1",
        job.queue_id, word,
    )  # fmt: skip
    assert await rows(empty_database, "select status, available_at, lease_until from noetl.queue") == before
    assert before[0][0] == "retry"
    assert await faults(noetl) == {}


async def test_that_servers_word_waits_for_a_decision_that_is_being_written(
    noetl: NoETL, empty_database: Database
) -> None:
    """The broker holds the row; its commit comes first, and then its decision stands."""
    await noetl.register(RETRIED)
    await noetl.start(9)
    await drain(empty_database)
    job = await noetl.lease()
    assert job is not None
    async with session(empty_database) as broker, session(empty_database) as watcher:
        async with broker.transaction():
            await broker.execute("select set_config('noetl.writer', 'broker', true)")
            await broker.execute("update noetl.queue set status = 'retry'")
            late = asyncio.create_task(noetl.connection.execute(DEAD, job.queue_id))
            await blocked(watcher)
        await late
    assert await value(empty_database, "select status from noetl.queue") == "retry"
    assert await value(empty_database, "select count(*) from noetl.ended_job") == 0


async def test_a_job_of_an_execution_that_has_ended_is_not_tried_again(noetl: NoETL, empty_database: Database) -> None:
    """That worker would; the row is cancelled instead, and nobody leases it."""
    await noetl.register(RETRIED)
    await noetl.start(9)
    await drain(empty_database, rules=Rules(retry_owner="worker"))
    job = await noetl.lease()
    assert job is not None
    await noetl.connection.fetchval("select noetl.cancel_execution(9)")
    await drain(empty_database)
    await noetl.fail(job, "boom")
    assert await value(empty_database, "select status from noetl.queue") == "cancelled"
    await drain(empty_database)
    assert await faults(noetl) == {}


@pytest.mark.parametrize("first", ["the server", "the broker"])
async def test_a_job_that_is_set_to_retry_at_the_moment_of_a_cancel_is_not_tried_again(
    noetl: NoETL, empty_database: Database, first: str
) -> None:
    """Neither saw what the other had not committed; whoever commits first, the reaper sees both."""
    await noetl.register(RETRIED)
    await noetl.start(9)
    await drain(empty_database, rules=Rules(retry_owner="worker"))
    job = await noetl.lease()
    assert job is not None
    async with session(empty_database) as server, session(empty_database) as broker:
        await server.execute("begin")
        await server.execute(RETRY, job.queue_id, 0.0)
        await broker.execute("begin")
        await broker.execute("select set_config('noetl.writer', 'broker', true)")
        await broker.execute(
            "update noetl.execution set status = 'CANCELLED'"
        )  # its jobs: none is seen that it can have
        await (server if first == "the server" else broker).execute("commit")
        await noetl.connection.execute("select noetl.reap_ended_jobs(9, 30)")
        await (broker if first == "the server" else server).execute("commit")
    assert await value(empty_database, "select status from noetl.queue") == "retry"
    await noetl.connection.execute("select noetl.reap_ended_jobs(9, 30)")
    assert await value(empty_database, "select status from noetl.queue") == "cancelled"
    await overlook(noetl)
    assert await value(empty_database, "select count(*) from noetl.ended_job") == 0


async def test_a_job_of_an_item_that_was_given_up_is_not_tried_again(noetl: NoETL, empty_database: Database) -> None:
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
    await drain(empty_database, rules=Rules(retry_owner="worker"))
    failing, held = await noetl.lease(), await noetl.lease()
    assert failing is not None
    assert held is not None
    noetl.retries = False
    await noetl.fail(failing, "boom")
    await drain(empty_database)
    await overlook(noetl, 0)
    await drain(empty_database)
    await noetl.connection.execute(RETRY, held.queue_id, 0.0)
    await overlook(noetl, 0)
    status = "select status from noetl.queue where queue_id = $1"
    assert await value(empty_database, status, held.queue_id) == "cancelled"
    noetl.tasks["last"] = lambda _: 1
    await run(noetl, empty_database)
    assert await ended(noetl) == [("COMPLETED", 1, None)]
    assert await faults(noetl) == {}


async def test_a_timeout_counts_from_that_servers_lease(noetl: NoETL, empty_database: Database) -> None:
    """The broker fails the attempt, also where the worker owns retries; the worker's late word changes nothing."""
    await noetl.register(STEP.replace("code: x", "code: x, timeout: 30"))
    await noetl.start(9)
    await drain(empty_database, rules=Rules(retry_owner="worker"))
    job = await noetl.lease()
    assert job is not None
    await noetl.connection.execute("update noetl.queue set first_leased_at = first_leased_at - interval '31 s'")
    assert await value(empty_database, "select timed_out from noetl.reap(9, 5)") == 1
    await noetl.fail(job, "too late")
    assert await value(empty_database, "select status from noetl.queue") == "failed"
    await drain(empty_database)
    assert await ended(noetl) == [("FAILED", None, "timeout: the action ran longer than 30 s")]
    assert await faults(noetl) == {}


async def test_a_timeout_counts_anew_when_the_worker_tries_again(noetl: NoETL, empty_database: Database) -> None:
    """Each attempt has the whole time."""
    await noetl.register(RETRIED.replace("code: x", "code: x, timeout: 30"))
    await noetl.start(9)
    await drain(empty_database, rules=Rules(retry_owner="worker"))
    job = await noetl.lease()
    assert job is not None
    await noetl.connection.execute("update noetl.queue set first_leased_at = first_leased_at - interval '31 s'")
    await noetl.fail(job, "boom")
    assert await noetl.lease(patience=1000.0) is not None
    assert await value(empty_database, "select timed_out from noetl.reap(9, 5)") == 0


async def test_who_owns_retries_is_pinned_at_the_start(noetl: NoETL, empty_database: Database) -> None:
    """A daemon with the other setting goes on as the execution began."""
    await noetl.register(RETRIED)
    await noetl.start(9)
    await drain(empty_database, rules=Rules(retry_owner="worker"))
    job = await noetl.lease()
    assert job is not None
    await noetl.report(job, "action_error", {}, error="boom")
    await drain(empty_database, rules=Rules(retry_owner="broker"))
    assert await value(empty_database, "select outcome from noetl.turn where turn = 2") == "recorded"


@pytest.mark.parametrize(
    "call, end",
    [
        ("noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"boom\"}')", ("FAILED", None, "boom")),
        ("noetl.complete_job(queue_id, 'w', attempts, '1')", ("COMPLETED", 1, None)),
    ],
)
async def test_our_own_workers_words_are_never_only_words(
    noetl: NoETL, empty_database: Database, call: str, end: tuple[Any, ...]
) -> None:
    """Our functions end a job in the queue and the log at once: the broker decides, and nothing is kept for later."""
    await noetl.register(STEP)
    await noetl.start(9)
    await drain(empty_database, rules=Rules(retry_owner="worker"))
    await noetl.connection.fetch(f"select {call} from noetl.lease_jobs('w')")
    assert await value(empty_database, "select count(*) from noetl.ended_job") == 0
    await drain(empty_database)
    assert await ended(noetl) == [end]
