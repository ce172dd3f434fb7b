"""Several events of one execution in one transaction: each sees what the others decided, and all is written once."""

from __future__ import annotations

from noetl_broker.broker.model import JSON
from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
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


async def fail_child(database: Database) -> None:
    """Let the one child that runs fail."""
    await execute(database, "select noetl.lease_jobs('w', 9)")
    await answer(database, "a", error={"message": "no"})
    await drain(database)


async def test_the_latest_result_is_that_of_the_highest_visit_whoever_ended_last(database: Database) -> None:
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
    assert (await drain(database)).counters.largest_batch == 2
    assert await value(database, "select result from noetl.execution") == 3
    assert await value(database, "select result_visit from noetl.workflow where step_name = 'a'") == 3


async def test_of_the_visits_that_end_in_one_batch_the_highest_one_gives_the_result(database: Database) -> None:
    """The second ended before the first: what the row says of the step is the second's."""
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
    assert (await drain(database)).counters.largest_batch == 2
    latest = """
        select w.result_visit, e.result
        from noetl.workflow w
        join noetl.event e on e.execution_id = w.execution_id and e.event_id = w.result_event_id
        where w.step_name = 'a'"""
    assert await rows(database, latest) == [(2, 2)]


async def test_a_step_that_starts_and_ends_in_one_batch_has_both_moments(database: Database) -> None:
    """Somebody who passes the job by reports its end before the broker has queued it."""
    await register(database, "workflow: [{step: start, next: a}, {step: a, type: python, code: x}]")
    [execution_id] = await start(database)
    insert = "insert into noetl.event (execution_id, event_type, node_id) values ($1, 'action_completed', $2)"
    await execute(database, insert, execution_id, f"{execution_id}:a")
    assert (await drain(database)).counters.largest_batch == 2
    assert await rows(database, "select ended_at > started_at from noetl.workflow where step_name = 'a'") == [(True,)]


async def test_what_is_to_be_tried_again_is_taken_back_by_the_end(database: Database) -> None:
    """One action fails and is to be retried, the next one ends the execution: no worker may get the first again."""
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
    assert (await drain(database)).counters.largest_batch == 2
    jobs = "select node_name, status from noetl.queue order by node_name"
    assert await rows(database, jobs) == [("a", "cancelled"), ("b", "dead")]
    assert await rows(database, "select queue_id from noetl.lease_jobs('w', 9)") == []
    assert await broken_invariants(database) == {}


async def test_of_two_changes_of_a_job_the_last_one_counts(database: Database) -> None:
    """It fails and is to be retried; then somebody who passes the job by reports that it is done after all."""
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
    assert (await drain(database)).counters.largest_batch == 2
    jobs = "select node_name, status from noetl.queue order by node_name"
    assert await rows(database, jobs) == [("a", "done"), ("b", "queued")]


async def test_a_job_that_is_queued_and_fails_at_once_waits_for_its_delay(database: Database) -> None:
    """Somebody who passes the job by reports the failure before the broker has queued it."""
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
    assert (await drain(database)).counters.largest_batch == 2
    jobs = "select status, available_at > now() + interval '50 seconds' from noetl.queue"
    assert await rows(database, jobs) == [("retry", True)]


async def test_the_timeout_of_a_child_counts_once_however_often_it_is_told(database: Database) -> None:
    """Told again after the next child was started, it does not give that one up."""
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


async def test_a_child_that_is_given_up_at_once_is_cancelled(database: Database) -> None:
    """Somebody says that its step failed before it stands in the tables; the step goes on."""
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


async def test_a_child_of_an_execution_that_is_cancelled_at_once_is_not_started(database: Database) -> None:
    """Both in the batch that would have started it."""
    await register(database, "workflow: [{step: start, next: call}, {step: call, type: playbook, path: child}]")
    [execution_id] = await start(database)
    await execute(database, "select noetl.cancel_execution($1)", execution_id)
    assert (await drain(database)).counters.largest_batch == 2
    assert await rows(database, "select path, status from noetl.execution") == [("story", "CANCELLED")]
    assert await broken_invariants(database) == {}


async def test_a_child_that_fails_at_once_is_started_again(database: Database) -> None:
    """Somebody says so before it stands in the tables; `retry` counts it."""
    body = """
    workflow:
    - {step: start, next: call}
    - {step: call, type: playbook, path: child, retry: {max_attempts: 2, initial_delay: 0}}
    """
    await register(database, "workflow: [{step: start, next: a}, {step: a, type: python, code: x}]", path="child")
    await register(database, body)
    [execution_id] = await start(database)
    insert = "insert into noetl.event (execution_id, event_type, node_id) values ($1, 'action_failed', $2)"
    await execute(database, insert, execution_id, f"{execution_id}:call")
    await drain(database)
    await execute(database, "select noetl.reap(9, 5)")
    await drain(database)
    children = "select status from noetl.execution where path = 'child' order by execution_id"
    assert await rows(database, children) == [("CANCELLED",), ("RUNNING",)]
    await complete_jobs(database)
    await drain(database)
    assert await value(database, "select status from noetl.execution where path = 'story'") == "COMPLETED"
    assert await broken_invariants(database) == {}


async def test_the_end_of_a_pause_told_again_does_not_shorten_the_next_one(database: Database) -> None:
    """It names the start that it is for: for another one it is a duplicate."""
    body = """
    workflow:
    - {step: start, next: call}
    - {step: call, type: playbook, path: child, retry: {max_attempts: 3, initial_delay: 60}}
    """
    await register(database, "workflow: [{step: start, next: a}, {step: a, type: python, code: x}]", path="child")
    await register(database, body)
    [execution_id] = await start(database)
    await drain(database)
    await fail_child(database)
    await execute(database, "update noetl.queue set available_at = now() where status = 'delegated'")
    await execute(database, "select noetl.reap(9, 5)")
    await drain(database)
    await fail_child(database)
    again = """
        insert into noetl.event (execution_id, event_type, node_id, node_name, meta)
        select execution_id, event_type, node_id, node_name, meta
        from noetl.event
        where event_type = 'child_due'"""
    await execute(database, again)
    await drain(database)
    latest = "select outcome from noetl.turn where execution_id = $1 order by turn desc limit 1"
    assert await value(database, latest, execution_id) == "duplicate"
    assert await value(database, "select count(*) from noetl.execution where path = 'child'") == 2
