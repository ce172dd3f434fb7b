"""The course of an execution as the database remembers it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from noetl_broker.broker.course import Course, Items, Outcomes
from noetl_broker.errors import NotFoundFault
from noetl_broker.playbook import Rules
from noetl_broker.store.courses import load_course
from noetl_broker.store.pool import connect
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database


async def course(database: Database, execution_id: int) -> Course:
    """Read one course."""
    connection = await connect(database.dsn, name="test")
    try:
        return (await load_course(connection, execution_id, Rules()))[1]
    finally:
        await connection.close()


async def taken(database: Database, execution_id: int) -> dict[str, int]:
    """How often each arc was taken, written `source -> target`."""
    connection = await connect(database.dsn, name="test")
    try:
        playbook, found = await load_course(connection, execution_id, Rules())
    finally:
        await connection.close()
    return {f"{arc.source} -> {arc.target}": found.trace.taken.get(arc.ordinal, 0) for arc in playbook.arcs}


async def fail_jobs(database: Database, message: str) -> None:
    """Lease all jobs and fail each."""
    statement = """
        with leased as (select queue_id, attempts from noetl.lease_jobs('test', 100))
        select noetl.fail_job(queue_id, 'test', attempts, $1) from leased"""
    await rows(database, statement, {"message": message})


CHOICE = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: [{when: "a.n < 2", step: a}, {when: "a.n > 9", step: b}, {else: [c]}]}
- {step: b, type: python, code: x, next: end}
- {step: c, type: python, code: x, next: end}
- {step: end}
"""


async def test_the_path_taken_is_read_back(database: Database) -> None:
    """Visits, times, arcs and the outcome of each condition, of a loop and a choice."""
    await register(database, CHOICE)
    [execution_id] = await start(database)
    for number in (1, 5):
        await drain(database)
        await complete_jobs(database, {"n": number})
    await drain(database)
    found = await course(database, execution_id)
    assert await taken(database, execution_id) == {
        "start -> a": 1,
        "a -> a": 1,
        "a -> b": 0,
        "a -> c": 1,
        "b -> end": 0,
        "c -> end": 0,
    }
    assert found.trace.outcomes == {("a", 0): Outcomes(true=1, false=1), ("a", 1): Outcomes(false=2)}
    assert {name: (step.status, step.visits) for name, step in found.steps.items()} == {
        "start": ("COMPLETED", 1),
        "a": ("COMPLETED", 2),
        "b": ("PENDING", 0),
        "c": ("RUNNING", 1),
        "end": ("PENDING", 0),
    }
    a = found.steps["a"]
    assert a.started_at is not None
    assert a.ended_at is not None
    assert timedelta(0) < a.ended_at - a.started_at < found.read_at - found.started_at


async def test_running_steps_say_what_they_wait_for(database: Database) -> None:
    """A worker, the next attempt, the others at a join."""
    await register(
        database,
        """
        workflow:
        - {step: start, next: [a, b, c]}
        - {step: a, type: python, code: x, next: j}
        - {step: b, type: http, url: x, retry: {max_attempts: 3, initial_delay: 60}, next: j}
        - {step: c, type: postgres, command: x, next: j}
        - {step: j, type: python, code: x}
        """,
    )
    [execution_id] = await start(database)
    await drain(database)
    await rows(
        database,
        "select noetl.complete_job(queue_id, 'w', attempts) from noetl.lease_jobs('w', 9, 60, '{python}')",
    )
    await rows(
        database,
        "select noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"503\"}') "
        "from noetl.lease_jobs('w', 9, 60, '{http}')",
    )
    await drain(database)
    await rows(database, "select count(*) from noetl.lease_jobs('w7', 9, 60, '{postgres}')")
    found = await course(database, execution_id)
    jobs = {name: step.job for name, step in found.steps.items() if step.job is not None}
    assert {name: (job.status, job.worker_id) for name, job in jobs.items() if name == "c"} == {"c": ("leased", "w7")}
    assert jobs["b"].status == "retry"
    assert jobs["b"].available_at is not None
    assert jobs["b"].available_at > found.read_at
    assert found.steps["j"].arrived == 1
    assert found.trace.retries == {"b": 1}


async def test_an_iterator_says_how_far_it_is(database: Database) -> None:
    """Its items by their state, counted in the database."""
    await register(
        database,
        """
        workflow:
        - {step: start, next: each}
        - step: each
          type: iterator
          collection: "{{ range(100) | list }}"
          element: n
          mode: async
          concurrency: 10
          distribute: true
          on_error: continue
          task: {type: python, code: x}
        """,
    )
    [execution_id] = await start(database)
    await drain(database)
    for _ in range(3):
        await complete_jobs(database)
        await drain(database)
    await fail_jobs(database, "no")
    await drain(database)
    assert (await course(database, execution_id)).steps["each"].items == Items(100, 30, 10, 10)


@pytest.mark.parametrize("ended", [False, True])
async def test_a_step_names_the_execution_that_it_started(database: Database, ended: bool) -> None:  # noqa: FBT001 - pytest
    """While it runs, and when it has answered."""
    await register(database, "workflow:\n- {step: start, next: sub}\n- {step: sub, type: playbook, path: child}\n")
    await register(database, "workflow:\n- {step: start, next: a}\n- {step: a, type: python, code: x}\n", path="child")
    [execution_id] = await start(database)
    await drain(database)
    if ended:
        await complete_jobs(database)
        await drain(database)
    child = await value(database, "select execution_id from noetl.execution where path = 'child'")
    found = await course(database, execution_id)
    assert found.steps["sub"].children == (child,)
    assert (found.status, (await course(database, child)).parent_execution_id) == (
        "COMPLETED" if ended else "RUNNING",
        execution_id,
    )


async def test_what_belongs_to_an_earlier_visit_is_not_shown(database: Database) -> None:
    """A step of a loop names the execution of its latest visit."""
    await register(
        database,
        """
        workflow:
        - {step: start, next: sub}
        - {step: sub, type: playbook, path: child, next: [{when: "true", step: sub}]}
        """,
    )
    await register(database, "workflow:\n- {step: start, next: a}\n- {step: a, type: python, code: x}\n", path="child")
    [execution_id] = await start(database)
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    children = await rows(
        database, "select execution_id from noetl.execution where path = 'child' order by execution_id"
    )
    sub = (await course(database, execution_id)).steps["sub"]
    assert (len(children), sub.visits, sub.children) == (2, 2, children[1])


async def test_a_failure_is_told_with_its_step(database: Database) -> None:
    """The message as the worker gave it."""
    await register(database, CHOICE)
    [execution_id] = await start(database)
    await drain(database)
    await fail_jobs(database, "it broke")
    await drain(database)
    found = await course(database, execution_id)
    assert (found.status, found.steps["a"].status) == ("FAILED", "FAILED")
    assert json.dumps(found.trace.errors["a"]).count("it broke") == 1


async def test_an_execution_that_nobody_has_read_stands_at_its_beginning(database: Database) -> None:
    """Its rows are made at its first turn."""
    await register(database, CHOICE)
    [execution_id] = await start(database)
    found = await course(database, execution_id)
    assert (found.status, found.steps, found.trace.taken) == ("RUNNING", {}, {})


async def test_what_is_not_there_is_said(database: Database) -> None:
    """An id of nothing, and an execution whose playbook is gone."""
    with pytest.raises(NotFoundFault, match="no execution 5; noetl-broker executions lists them"):
        await course(database, 5)
    await register(database, CHOICE)
    [execution_id] = await start(database)
    await execute(database, "delete from noetl.catalog")
    with pytest.raises(NotFoundFault, match=f"execution {execution_id} cannot be drawn: the catalog has no row"):
        await course(database, execution_id)
