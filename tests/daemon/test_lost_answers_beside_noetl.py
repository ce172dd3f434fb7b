"""Beside a NoETL server: answers of its worker that never come, come late, or wait to be read."""

from __future__ import annotations

from tests.brokers import drain, rows, value
from tests.noetl import (
    STEP,
    NoETL,
    ended,
    faults,
    overlook,
    run,
)
from tests.postgres import Database


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


async def test_the_mail_is_looked_through_once_however_many_answers_wait_in_it(
    noetl: NoETL, empty_database: Database
) -> None:
    """After a broker was away there are many of both: a look must not take their product."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: 1
    for execution_id in range(100, 140):
        await noetl.start(execution_id)
    await drain(empty_database)
    for _ in range(40):
        await noetl.work()
    read = "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables where relname = 'inbox'"
    async with noetl.connection.transaction():
        assert await overlook(noetl) == 0
        assert await noetl.connection.fetchval(read) == 40


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
