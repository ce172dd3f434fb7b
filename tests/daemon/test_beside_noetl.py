"""The broker inside a NoETL server: that server starts executions and keeps the queue, its worker runs the jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container
from typing import Any

import pytest

from noetl_broker.broker.model import JSON, Rules
from noetl_broker.playbook import Rules as PlaybookRules
from noetl_broker.playbook import compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.store.catalog import register
from noetl_broker.store.verify import Scope, verify
from tests.brokers import drain, rows, running, until_ended, value
from tests.noetl import DEAD, Boom, NoETL, open_noetl, run
from tests.postgres import Database
from tests.sessions import blocked, session

OWNERS = ("broker", "worker")
STEP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""
RETRIED = STEP.replace("code: x", "code: x, retry: {max_attempts: 3, initial_delay: 20, jitter: false}")

# Examples without a worker that iterates, with a payload and what the execution must come to.
EXAMPLES: list[tuple[str, JSON, JSON]] = [
    ("conditional", {}, {"message": "Paris is 6 degrees too hot", "temperature": 31}),
    ("conditional", {"city": "Oslo"}, {"message": "nothing to report from Oslo", "temperature": 12}),
    (
        "fan_out_join",
        {"words": ["ab", "c"]},
        [{"upper": "AB", "length": 2, "reverse": "ba"}, {"upper": "C", "length": 1, "reverse": "c"}],
    ),
    ("diamond", {}, {"booked": 123, "handled": "automatically"}),
    ("diamond", {"amount": -1}, {"booked": 0, "handled": "not at all"}),
    ("loop", {"rounds": 4}, {"rounds": 4}),
    ("workbook", {}, ["Hello, Ada!", "Good morning, Grace!"]),
    ("start_and_end", {"text": "x y"}, {"count": 2}),
    ("error_handling", {}, {"reported": "division by zero"}),
    ("error_handling", {"divisor": 4}, {"quotient": 2.5}),
    (
        "iterator_playbook",
        {},
        {
            "invoice": [
                {"line": "1 satchel", "amount": 50},
                {"line": "2 pencil", "amount": 27},
                {"line": "3 ruler", "amount": 20},
            ],
            "total": 97,
        },
    ),
    ("distributed_iterator", {}, {"fahrenheit": [53.6, 63.5, None, 48.2], "failed": 1}),
    ("nested_child", {}, {"received": "a book", "rings": 2}),
]


@pytest.fixture
async def noetl(empty_database: Database) -> AsyncIterator[NoETL]:
    """That server and its worker, on a database of theirs that was migrated."""
    both = await open_noetl(empty_database)
    try:
        yield both
    finally:
        await both.connection.close()


async def faults(noetl: NoETL) -> dict[str, list[str]]:
    """Everything that `verify --deep` finds, by its sentence."""
    report = await verify(noetl.connection, Scope(), deep=PlaybookRules())
    return {v.check.sentence: [fault.detail for fault in v.examples] for v in report.verdicts if v.broken}


async def ended(noetl: NoETL) -> list[tuple[Any, ...]]:
    """How each execution ended."""
    found = await noetl.connection.fetch(
        "select status, result, error ->> 'message' from noetl.execution order by execution_id"
    )
    return [tuple(row) for row in found]


async def log(noetl: NoETL) -> list[str]:
    """The event types in the order that the server's own listing gives."""
    found = await noetl.connection.fetch("select event_type from noetl.event order by created_at, event_id")
    return [row[0] for row in found]


async def overlook(noetl: NoETL, seconds: float = 30.0) -> int:
    """What the reaper decides from rows whose jobs ended so many seconds ago."""
    await noetl.connection.execute(
        "update noetl.ended_job set ended_at = ended_at - make_interval(secs => $1)", seconds
    )
    return int(await noetl.connection.fetchval("select noetl.reap_ended_jobs(1000, 30)"))


@pytest.mark.parametrize(
    "lost", [(), ("action_completed",), ("action_started", "step_result", "action_retry")], ids=str
)
@pytest.mark.parametrize("owner", OWNERS)
async def test_whole_examples_run_through_that_server_and_worker(
    noetl: NoETL, empty_database: Database, owner: str, lost: Container[str]
) -> None:
    """With the results that they have with our own worker, whoever decides about retries and whatever is lost."""
    files = sorted(playbooks_folder().glob("*.yaml"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    await register(noetl.connection, [(compile_playbook(text, rules=PlaybookRules()), text) for text in texts])
    noetl.lost = lost
    noetl.tasks["ring"] = rings_twice()
    started = {
        await noetl.start(number, path=f"examples/{name}", payload=payload): result
        for number, (name, payload, result) in enumerate(EXAMPLES, 1)
    }
    await run(noetl, empty_database, turns=200, rules=Rules(retry_owner=owner))
    found = await noetl.connection.fetch(
        "select execution_id, result from noetl.execution where parent_execution_id is null order by execution_id"
    )
    assert [row[1] for row in found] == list(started.values())
    assert await faults(noetl) == {}
    assert await value(empty_database, "select count(*) from noetl.ended_job") == 0


async def test_the_log_of_a_step_is_the_seeds(noetl: NoETL, empty_database: Database) -> None:
    """By the times without a zone that both write; `step_result` comes right after the answer."""
    await noetl.register(STEP)
    await noetl.start(9)
    noetl.tasks["a"] = lambda _: {"n": 1}
    await run(noetl, empty_database)
    assert await log(noetl) == [
        "execution_start", "step_started", "action_started", "action_completed", "step_result", "step_completed",
        "execution_complete",
    ]  # fmt: skip
    assert await ended(noetl) == [("COMPLETED", {"n": 1}, None)]


async def test_the_daemon_serves_while_that_worker_works(noetl: NoETL, empty_database: Database) -> None:
    """Its reaper decides on the row, after a grace of a second, whose event was lost with its result."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: {"n": 1}
    noetl.lost = {"action_completed", "step_result"}
    await noetl.start(9)
    await drain(empty_database)
    assert await noetl.work() is not None
    async with running(empty_database, missing_event_seconds=1.0, reap_seconds=0.05):
        await until_ended(empty_database)
    assert await ended(noetl) == [("COMPLETED", None, None)]
    assert await faults(noetl) == {}


async def test_a_lost_answer_is_waited_for_and_then_decided_from_the_row(
    noetl: NoETL, empty_database: Database
) -> None:
    """Meanwhile nothing is broken; the data that came as `step_result` is the result."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: {"n": 1}
    noetl.lost = {"action_completed"}
    await noetl.start(9)
    await drain(empty_database)
    await noetl.work()
    assert await overlook(noetl, 29) == 0
    assert await faults(noetl) == {}
    assert await overlook(noetl, 2) == 1
    meta = await value(empty_database, "select meta from noetl.event where event_type = 'action_completed'")
    assert (meta["queue_status"], meta["attempt"]) == ("done", 1)
    assert await overlook(noetl) == 0
    await drain(empty_database)
    assert await ended(noetl) == [("COMPLETED", {"n": 1}, None)]
    assert await faults(noetl) == {}


async def test_an_answer_that_came_is_not_decided_again(noetl: NoETL, empty_database: Database) -> None:
    """Neither before the broker has read it, however long that takes, nor after; and it is not looked at for ever."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: {"n": 1}
    await noetl.start(9)
    await drain(empty_database)
    await noetl.work()
    assert await overlook(noetl) == 0
    assert await value(empty_database, "select count(*) from noetl.ended_job") == 1
    await drain(empty_database)
    assert await overlook(noetl) == 0
    assert await value(empty_database, "select count(*) from noetl.ended_job") == 0
    assert await ended(noetl) == [("COMPLETED", {"n": 1}, None)]


async def test_an_answer_that_came_is_none_that_is_missing_because_its_step_runs_again(
    noetl: NoETL, empty_database: Database
) -> None:
    """The next visit of the step lives, and other steps do: they have jobs of their own."""
    await noetl.register(
        """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, next: [{when: "{{ a.again }}", step: a}]}
        - {step: b, type: python, code: x, next: end}
        - {step: end}
        """
    )
    noetl.tasks["a"] = lambda _: {"again": True}
    noetl.tasks["b"] = noetl.tasks["a"]
    await noetl.start(9)
    await drain(empty_database)
    assert {job.step for job in (await noetl.work(), await noetl.work()) if job is not None} == {"a", "b"}
    await drain(empty_database)
    assert await rows(empty_database, "select node_id from noetl.queue where status = 'queued'") == [("9:a#2",)]
    assert await overlook(noetl) == 0
    assert await value(empty_database, "select count(*) from noetl.ended_job") == 0


async def test_an_answer_that_comes_after_the_decision_is_a_duplicate(noetl: NoETL, empty_database: Database) -> None:
    """The line had held it back for longer than the grace; so is what is sent again, with another id."""
    await noetl.register(STEP)
    await noetl.start(9)
    await drain(empty_database)
    job = await noetl.lease()
    assert job is not None
    await noetl.connection.execute("update noetl.queue set status = 'done' where queue_id = $1", job.queue_id)
    assert await overlook(noetl) == 1
    for _ in range(2):
        await noetl.report(job, "action_completed", {"id": "x", "status": "success", "data": 1})
        await noetl.report(job, "step_result", 1)
    await drain(empty_database)
    outcomes = "select outcome from noetl.turn order by turn"
    assert await rows(empty_database, outcomes) == [("decided",), ("decided",), ("after_end",), ("after_end",)]
    assert await ended(noetl) == [("COMPLETED", None, None)]
    assert await faults(noetl) == {}


async def test_what_the_broker_could_not_read_is_not_decided_from_the_row(
    noetl: NoETL, empty_database: Database
) -> None:
    """The answer may be among the dead letters: a person looks first."""
    await noetl.register(STEP)
    await noetl.start(9)
    await drain(empty_database)
    job = await noetl.lease()
    assert job is not None
    await noetl.complete(job, 1)
    await noetl.connection.execute("insert into noetl.dead_letter (execution_id, event_id, reason) values (9, 1, 'x')")
    await noetl.connection.execute("delete from noetl.inbox")
    assert await overlook(noetl) == 0
    await noetl.connection.execute("delete from noetl.dead_letter")
    assert await overlook(noetl) == 1


async def test_answers_that_wait_to_be_read_do_not_hide_those_that_never_come(
    noetl: NoETL, empty_database: Database
) -> None:
    """A look at a bounded number of rows does not stop at the same ones each time."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: 1
    for execution_id in (8, 9):
        await noetl.start(execution_id)
    await drain(empty_database)
    for lost in (set[str](), {"action_completed", "step_result"}):
        noetl.lost = lost
        await noetl.work()
    await noetl.connection.execute("update noetl.ended_job set ended_at = ended_at - interval '31 s'")
    looks = [await noetl.connection.fetchval("select noetl.reap_ended_jobs(1, 30)") for _ in range(2)]
    assert looks == [0, 1]


async def test_a_step_that_waits_for_what_its_worker_started_has_its_answer(
    noetl: NoETL, empty_database: Database
) -> None:
    """The job is done, the event came, and the step is open all the same: its child runs, for longer than the grace."""
    await noetl.register(STEP)
    await noetl.start(9)
    await drain(empty_database)
    job = await noetl.lease()
    assert job is not None
    await noetl.report(job, "iteration_started", context={"child_execution_id": "77", "index": 0})
    await noetl.complete(job, None)
    await drain(empty_database)
    assert await overlook(noetl) == 0
    assert await faults(noetl) == {}
    await noetl.start(77, meta={"parent_execution_id": "9", "parent_step": "a"})
    noetl.tasks["a"] = lambda _: 5
    await run(noetl, empty_database)
    assert await ended(noetl) == [("COMPLETED", [5], None), ("COMPLETED", 5, None)]
    assert await faults(noetl) == {}


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


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Lima"])
async def test_a_server_in_another_time_zone_is_no_trouble(noetl: NoETL, empty_database: Database, zone: str) -> None:
    """Its times without a zone are hours away from ours: turns are in order all the same, and nothing comes late."""
    await noetl.connection.execute(f"set timezone = '{zone}'")
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: 1
    await noetl.start(9)
    await drain(empty_database)
    await noetl.work()
    assert await overlook(noetl) == 0
    await drain(empty_database)
    assert await ended(noetl) == [("COMPLETED", 1, None)]
    assert await faults(noetl) == {}


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


async def test_jobs_of_executions_from_before_are_that_servers(noetl: NoETL, empty_database: Database) -> None:
    """Nothing that it does with them is changed or kept."""
    await noetl.register(STEP)
    await noetl.connection.execute(
        """insert into noetl.queue (execution_id, catalog_id, node_id, action, status)
        select 5, c.catalog_id, '5:a', '{}', 'dead' from noetl.catalog c"""
    )
    for status in ("queued", "leased", "retry", "leased", "dead", "retry", "done"):
        await noetl.connection.execute("update noetl.queue set status = $1", status)
        assert await value(empty_database, "select status from noetl.queue") == status
    assert await value(empty_database, "select count(*) from noetl.ended_job") == 0


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


async def test_the_start_event_is_the_truth(noetl: NoETL, empty_database: Database) -> None:
    """Not the server's workload row; the parent that it names in `meta` is the parent."""
    await noetl.register(STEP.replace("code: x", 'code: x, args: {n: "{{ workload.n }}"}'))
    await noetl.start(8)
    await noetl.start(9, payload={"n": 7}, meta={"parent_execution_id": "8", "parent_step": "a"})
    noetl.tasks["a"] = lambda job: job.action["args"]["n"] if job.execution_id == 9 else None
    await noetl.connection.execute("update noetl.event set context = replace(context, '{}', '{\"n\": 1}')")
    await run(noetl, empty_database)
    found = "select workload, parent_execution_id, result from noetl.execution order by execution_id"
    assert await rows(empty_database, found) == [({"n": 1}, None, None), ({"n": 7}, 8, 7)]


async def test_ids_of_both_generators_mix(noetl: NoETL, empty_database: Database) -> None:
    """The server's are larger than ours by years: the order of the history is the order of its turns."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: 1
    await noetl.start(9)
    await run(noetl, empty_database)
    by_id = await rows(empty_database, "select event_type from noetl.event order by event_id")
    assert [kind for (kind,) in by_id] != await log(noetl)
    assert await rows(
        empty_database,
        "select e.event_type from noetl.turn t join noetl.event e using (execution_id, event_id) order by t.turn",
    ) == [("execution_start",), ("action_completed",)]
    assert await faults(noetl) == {}


@pytest.mark.parametrize("name,payload,_", EXAMPLES)
async def test_no_event_of_the_brokers_gives_a_step_another_result(
    noetl: NoETL, empty_database: Database, name: str, payload: JSON, _: JSON
) -> None:
    """That server takes every result under a step's name for the step's: only what the step gave may stand there."""
    files = sorted(playbooks_folder().glob("*.yaml"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    await register(noetl.connection, [(compile_playbook(text, rules=PlaybookRules()), text) for text in texts])
    noetl.tasks["ring"] = rings_twice()
    await noetl.start(9, path=f"examples/{name}", payload=payload)
    await run(noetl, empty_database)
    # node_type 'task' is the worker's; an iterator's own result is what its turn read
    foreign = """
        select e.event_type, e.node_name, e.result
        from noetl.event e
        join noetl.workflow w on w.execution_id = e.execution_id and w.step_name = e.node_name
        where e.node_type <> 'task'
          and coalesce(e.result, 'null') not in ('null', '{}')
          and e.event_id is distinct from w.result_event_id"""
    assert await rows(empty_database, foreign) == []


def rings_twice() -> Any:
    """What the step `ring` of an example says, whose first attempt fails."""
    rung = iter((1, 2))
    return lambda _: {"rows": [{"rings": 2}]} if next(rung) > 1 else boom("division by zero")


def fails_until(attempt: int) -> Any:
    """A task that fails until this attempt."""
    return lambda job: {"attempt": job.attempts} if job.attempts >= attempt else boom(f"attempt {job.attempts}")


def boom(message: str) -> Any:
    """Fail with this message."""
    raise Boom(message)
