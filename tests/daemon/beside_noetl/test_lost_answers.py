"""Beside a NoETL server: answers of its worker that are lost, late or unread."""

from __future__ import annotations

from tests.brokers import drain, rows, value
from tests.noetl import (
    STEP,
    NoETL,
    ended,
    reap_ended_jobs,
    run,
    verify_faults,
)
from tests.postgres import Database


async def test_a_lost_answer_is_decided_from_the_row_after_the_grace(noetl: NoETL, noetl_database: Database) -> None:
    """Meanwhile all invariants hold. The data of `step_result` is the result."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: {"n": 1}
    noetl.lost = {"action_completed"}
    await noetl.start(9)
    await drain(noetl_database)
    await noetl.work()
    assert await reap_ended_jobs(noetl, 29) == 0
    assert await verify_faults(noetl) == {}
    assert await reap_ended_jobs(noetl, 2) == 1
    meta = await value(noetl_database, "select meta from noetl.event where event_type = 'action_completed'")
    assert (meta["queue_status"], meta["attempt"]) == ("done", 1)
    assert await reap_ended_jobs(noetl) == 0
    await drain(noetl_database)
    assert await ended(noetl) == [("COMPLETED", {"n": 1}, None)]
    assert await verify_faults(noetl) == {}


async def test_an_answer_that_came_is_decided_once(noetl: NoETL, noetl_database: Database) -> None:
    """Before the broker has read it and after. Its row is removed."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: {"n": 1}
    await noetl.start(9)
    await drain(noetl_database)
    await noetl.work()
    assert await reap_ended_jobs(noetl) == 0
    assert await value(noetl_database, "select count(*) from noetl.ended_job") == 1
    await drain(noetl_database)
    assert await reap_ended_jobs(noetl) == 0
    assert await value(noetl_database, "select count(*) from noetl.ended_job") == 0
    assert await ended(noetl) == [("COMPLETED", {"n": 1}, None)]


async def test_an_answer_is_not_missing_while_a_later_visit_runs(noetl: NoETL, noetl_database: Database) -> None:
    """The next visit of the step, and other steps, have their own jobs."""
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
    await drain(noetl_database)
    assert {job.step for job in (await noetl.work(), await noetl.work()) if job is not None} == {"a", "b"}
    await drain(noetl_database)
    assert await rows(noetl_database, "select node_id from noetl.queue where status = 'queued'") == [("9:a#2",)]
    assert await reap_ended_jobs(noetl) == 0
    assert await value(noetl_database, "select count(*) from noetl.ended_job") == 0


async def test_an_answer_after_the_decision_is_a_duplicate(noetl: NoETL, noetl_database: Database) -> None:
    """It was delayed for longer than the grace, or sent again with another id."""
    await noetl.register(STEP)
    await noetl.start(9)
    await drain(noetl_database)
    job = await noetl.lease()
    assert job is not None
    await noetl.connection.execute("update noetl.queue set status = 'done' where queue_id = $1", job.queue_id)
    assert await reap_ended_jobs(noetl) == 1
    for _ in range(2):
        await noetl.report(job, "action_completed", {"id": "x", "status": "success", "data": 1})
        await noetl.report(job, "step_result", 1)
    await drain(noetl_database)
    outcomes = "select outcome from noetl.turn order by turn"
    assert await rows(noetl_database, outcomes) == [("decided",), ("decided",), ("after_end",), ("after_end",)]
    assert await ended(noetl) == [("COMPLETED", None, None)]
    assert await verify_faults(noetl) == {}


async def test_a_job_with_a_dead_letter_is_not_decided_from_its_row(noetl: NoETL, noetl_database: Database) -> None:
    """The dead letter may be the answer: an operator looks first."""
    await noetl.register(STEP)
    await noetl.start(9)
    await drain(noetl_database)
    job = await noetl.lease()
    assert job is not None
    await noetl.complete(job, 1)
    await noetl.connection.execute("insert into noetl.dead_letter (execution_id, event_id, reason) values (9, 1, 'x')")
    await noetl.connection.execute("delete from noetl.inbox")
    assert await reap_ended_jobs(noetl) == 0
    await noetl.connection.execute("delete from noetl.dead_letter")
    assert await reap_ended_jobs(noetl) == 1


async def test_unread_answers_do_not_hide_lost_ones(noetl: NoETL, noetl_database: Database) -> None:
    """Each scan reads a bounded number of rows, and each scan reads other rows."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: 1
    for execution_id in (8, 9):
        await noetl.start(execution_id)
    await drain(noetl_database)
    for lost in (set[str](), {"action_completed", "step_result"}):
        noetl.lost = lost
        await noetl.work()
    await noetl.connection.execute("update noetl.ended_job set ended_at = ended_at - interval '31 s'")
    looks = [await noetl.connection.fetchval("select noetl.reap_ended_jobs(1, 30)") for _ in range(2)]
    assert looks == [0, 1]


async def test_a_scan_for_lost_answers_reads_the_inbox_once(noetl: NoETL, noetl_database: Database) -> None:
    """However many answers wait in it."""
    await noetl.register(STEP)
    noetl.tasks["a"] = lambda _: 1
    for execution_id in range(100, 140):
        await noetl.start(execution_id)
    await drain(noetl_database)
    for _ in range(40):
        await noetl.work()
    read = "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables where relname = 'inbox'"
    async with noetl.connection.transaction():
        assert await reap_ended_jobs(noetl) == 0
        assert await noetl.connection.fetchval(read) == 40


async def test_a_step_that_waits_for_children_of_its_worker_has_its_answer(
    noetl: NoETL, noetl_database: Database
) -> None:
    """The job is done and its event exists; the step stays open for its child."""
    await noetl.register(STEP)
    await noetl.start(9)
    await drain(noetl_database)
    job = await noetl.lease()
    assert job is not None
    await noetl.report(job, "iteration_started", context={"child_execution_id": "77", "index": 0})
    await noetl.complete(job, None)
    await drain(noetl_database)
    assert await reap_ended_jobs(noetl) == 0
    assert await verify_faults(noetl) == {}
    await noetl.start(77, meta={"parent_execution_id": "9", "parent_step": "a"})
    noetl.tasks["a"] = lambda _: 5
    await run(noetl, noetl_database)
    assert await ended(noetl) == [("COMPLETED", [5], None), ("COMPLETED", 5, None)]
    assert await verify_faults(noetl) == {}
