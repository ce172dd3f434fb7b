"""Several events of one execution in one transaction: each sees the decisions before it, and all are written once."""

from __future__ import annotations

from noetl_broker.broker.model.values import JSON
from tests.brokers import broken_invariants, drain, execute, register, rows, start, value
from tests.postgres import Database


async def answer(database: Database, node: str, result: JSON = None, error: JSON = None) -> None:
    """Complete or fail the job of one visit."""
    call = "complete_job" if error is None else "fail_job"
    statement = f"select noetl.{call}(queue_id, 'w', attempts, $2) from noetl.queue"
    where = " where node_id like '%:' || $1 and status = 'leased'"
    await execute(database, statement + where, node, result if error is None else error)


async def begin(database: Database, body: str) -> int:
    """Start an execution and lease all its jobs; gives its id."""
    await register(database, body)
    [execution_id] = await start(database)
    await drain(database)
    await execute(database, "select noetl.lease_jobs('w', 99)")
    return execution_id


async def test_the_result_of_a_step_is_that_of_its_highest_visit(database: Database) -> None:
    """The third visit ended in an earlier transaction than the first two, which share one."""
    await begin(
        database,
        """
        workflow:
        - {step: start, next: [a, a, a]}
        - {step: a, join: each, type: python, code: x, next: end}
        - {step: end}
        """,
    )
    await answer(database, "a#3", 3)
    await drain(database)
    await answer(database, "a", 1)
    await answer(database, "a#2", 2)
    assert (await drain(database)).metrics.largest_batch == 2
    assert await value(database, "select result from noetl.execution") == 3
    assert await value(database, "select result_visit from noetl.workflow where step_name = 'a'") == 3


async def test_of_visits_that_end_in_one_batch_the_highest_gives_the_result(database: Database) -> None:
    """The second ends before the first."""
    await begin(
        database,
        """
        workflow:
        - {step: start, next: [a, a]}
        - {step: a, join: each, type: python, code: x, next: end}
        - {step: end}
        """,
    )
    await answer(database, "a#2", 2)
    await answer(database, "a", 1)
    assert (await drain(database)).metrics.largest_batch == 2
    latest = """
        select w.result_visit, e.result
        from noetl.workflow w
        join noetl.event e on e.execution_id = w.execution_id and e.event_id = w.result_event_id
        where w.step_name = 'a'"""
    assert await rows(database, latest) == [(2, 2)]


async def test_a_step_that_starts_and_ends_in_one_batch_has_both_times(database: Database) -> None:
    """Its end is reported by hand before the broker has queued the job."""
    await register(database, "workflow: [{step: start, next: a}, {step: a, type: python, code: x}]")
    [execution_id] = await start(database)
    insert = "insert into noetl.event (execution_id, event_type, node_id) values ($1, 'action_completed', $2)"
    await execute(database, insert, execution_id, f"{execution_id}:a")
    assert (await drain(database)).metrics.largest_batch == 2
    assert await rows(database, "select ended_at > started_at from noetl.workflow where step_name = 'a'") == [(True,)]


async def test_the_end_of_an_execution_cancels_a_retry_of_the_same_batch(database: Database) -> None:
    """One action fails and is to be retried, the next one ends the execution."""
    await begin(
        database,
        """
        workflow:
        - {step: start, next: [a, b]}
        - {step: a, type: python, code: x, retry: {max_attempts: 3, initial_delay: 0}}
        - {step: b, type: python, code: x}
        """,
    )
    await answer(database, "a", error={"message": "busy"})
    await answer(database, "b", error={"message": "no"})
    assert (await drain(database)).metrics.largest_batch == 2
    jobs = "select node_name, status from noetl.queue order by node_name"
    assert await rows(database, jobs) == [("a", "cancelled"), ("b", "dead")]
    assert await rows(database, "select queue_id from noetl.lease_jobs('w', 9)") == []
    assert await broken_invariants(database) == {}


async def test_of_two_changes_of_a_job_in_one_batch_the_last_counts(database: Database) -> None:
    """It fails and is to be retried; then its completion is reported by hand."""
    execution_id = await begin(
        database,
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, retry: {max_attempts: 3, initial_delay: 0}, next: b}
        - {step: b, type: python, code: x}
        """,
    )
    await answer(database, "a", error={"message": "busy"})
    insert = "insert into noetl.event (execution_id, event_type, node_id) values ($1, 'action_completed', $2)"
    await execute(database, insert, execution_id, f"{execution_id}:a")
    assert (await drain(database)).metrics.largest_batch == 2
    jobs = "select node_name, status from noetl.queue order by node_name"
    assert await rows(database, jobs) == [("a", "done"), ("b", "queued")]


async def test_a_job_that_fails_in_the_batch_that_queues_it_waits_for_its_retry(database: Database) -> None:
    """An operator reports the failure before the broker has queued the job."""
    await register(
        database,
        """
        workflow:
        - {step: start, next: a}
        - {step: a, type: python, code: x, retry: {max_attempts: 3, initial_delay: 60, jitter: false}}
        """,
    )
    [execution_id] = await start(database)
    insert = "insert into noetl.event (execution_id, event_type, node_id) values ($1, 'action_failed', $2)"
    await execute(database, insert, execution_id, f"{execution_id}:a")
    assert (await drain(database)).metrics.largest_batch == 2
    jobs = "select status, available_at > now() + interval '50 seconds' from noetl.queue"
    assert await rows(database, jobs) == [("retry", True)]


async def test_a_repeated_timeout_of_a_child_counts_once(database: Database) -> None:
    """The repetition comes after the next child started, and does not end that one."""
    body = """
    workflow:
    - {step: start, next: call}
    - {step: call, type: playbook, path: child, timeout: 30, retry: {max_attempts: 3, initial_delay: 0}}
    """
    await register(database, "workflow: [{step: start, next: a}, {step: a, type: python, code: x}]", path="child")
    execution_id = await begin(database, body)
    late = "update noetl.queue set first_leased_at = now() - interval '1 minute' where timeout_seconds > 0"
    await execute(database, late)
    await execute(database, "select noetl.reap(9, 5)")
    await drain(database)
    await execute(database, "select noetl.reap(9, 5)")
    await drain(database)
    again = """
        insert into noetl.event (execution_id, event_type, node_id, node_name, error, meta)
        select execution_id, event_type, node_id, node_name, error, meta
        from noetl.event
        where event_type = 'action_failed' and error ->> 'type' = 'timeout'"""
    await execute(database, again)
    await drain(database)
    latest = "select outcome from noetl.turn where execution_id = $1 order by turn desc limit 1"
    assert await value(database, latest, execution_id) == "duplicate"
    children = "select status from noetl.execution where path = 'child' order by execution_id"
    assert await rows(database, children) == [("CANCELLED",), ("RUNNING",)]


async def test_a_child_is_cancelled_when_its_step_fails_in_the_same_batch(database: Database) -> None:
    """The step goes on."""
    body = """
    workflow:
    - {step: start, next: call}
    - {step: call, type: playbook, path: child, on_error: continue}
    """
    await register(database, "workflow: [{step: start, next: a}, {step: a, type: python, code: x}]", path="child")
    await register(database, body)
    [execution_id] = await start(database)
    insert = "insert into noetl.event (execution_id, event_type, node_id) values ($1, 'action_failed', $2)"
    await execute(database, insert, execution_id, f"{execution_id}:call")
    await drain(database)
    ended = "select path, status from noetl.execution order by execution_id"
    assert await rows(database, ended) == [("story", "COMPLETED"), ("child", "CANCELLED")]
    assert await broken_invariants(database) == {}


async def test_a_child_is_not_started_when_its_parent_is_cancelled_in_the_same_batch(database: Database) -> None:
    """The cancel comes in the batch that would start it."""
    await register(database, "workflow: [{step: start, next: call}, {step: call, type: playbook, path: child}]")
    [execution_id] = await start(database)
    await execute(database, "select noetl.cancel_execution($1)", execution_id)
    assert (await drain(database)).metrics.largest_batch == 2
    assert await rows(database, "select path, status from noetl.execution") == [("story", "CANCELLED")]
    assert await broken_invariants(database) == {}
