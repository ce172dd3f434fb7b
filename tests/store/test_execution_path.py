"""The path of an execution, loaded from the database."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from noetl_broker.errors import NotFoundFault
from noetl_broker.history.path import ExecutionPath, Items, Outcomes
from noetl_broker.history.visit_spans import times_text
from noetl_broker.playbook import PlaybookRules
from noetl_broker.store.admin.execution_path import load_execution_path
from noetl_broker.store.admin.executions import load_execution_details
from noetl_broker.store.admin.visit_spans import load_spans
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.sessions import session


async def load_path(database: Database, execution_id: int) -> ExecutionPath:
    """Load the path of one execution."""
    async with session(database) as connection:
        return (await load_execution_path(connection, execution_id, PlaybookRules()))[1]


async def taken(database: Database, execution_id: int) -> dict[str, int]:
    """Return how often each transition was taken, by `source -> target`."""
    async with session(database) as connection:
        playbook, found = await load_execution_path(connection, execution_id, PlaybookRules())
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


async def test_the_path_has_visits_times_transitions_and_conditions(database: Database) -> None:
    """The execution has a loop and a choice."""
    await register(database, CHOICE)
    [execution_id] = await start(database)
    for number in (1, 5):
        await drain(database)
        await complete_jobs(database, {"n": number})
    await drain(database)
    found = await load_path(database, execution_id)
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
    """A worker, the next attempt, or other tokens at a join."""
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
    found = await load_path(database, execution_id)
    jobs = {name: step.job for name, step in found.steps.items() if step.job is not None}
    assert {name: (job.status, job.worker_id) for name, job in jobs.items() if name == "c"} == {"c": ("leased", "w7")}
    assert jobs["b"].status == "retry"
    assert jobs["b"].available_at is not None
    assert jobs["b"].available_at > found.read_at
    assert found.steps["j"].arrived == 1
    assert found.trace.retries == {"b": 1}


async def test_an_iterator_has_the_number_of_items_by_state(database: Database) -> None:
    """The database counts them."""
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
    assert (await load_path(database, execution_id)).steps["each"].items == Items(100, 30, 10, 10)


async def test_a_step_names_the_child_of_its_latest_visit(database: Database) -> None:
    """While the child runs and after it ended. The step is in a loop."""
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
    children = []
    for visit in (1, 2):
        children.append(await value(database, "select max(execution_id) from noetl.execution where path = 'child'"))
        found = await load_path(database, execution_id)
        assert (found.steps["sub"].visits, found.steps["sub"].children) == (visit, (children[-1],))
        assert (await load_path(database, children[-1])).parent_execution_id == execution_id
        await complete_jobs(database)
        await drain(database)
    assert children[0] < children[1]
    await execute(database, "select noetl.cancel_execution($1)", execution_id)
    await drain(database)
    found = await load_path(database, execution_id)
    assert (found.status, len(found.steps["sub"].children)) == ("CANCELLED", 1)


async def test_only_a_worker_lets_a_visit_wait_for_it(database: Database) -> None:
    """A step that calls a playbook has a row in the queue too, for its time limit; the broker runs it."""
    await register(database, "workflow: [{step: start, type: wait, for: 1d}]", path="leaf")
    call = "{step: call, type: playbook, path: leaf, timeout: 50}, {step: work, type: own}"
    await register(database, f"workflow: [{{step: start, next: [call, work]}}, {call}]")
    [execution_id] = await start(database)
    await drain(database)
    async with session(database) as connection:
        spans = await load_spans(connection, await load_execution_details(connection, execution_id))
    found = {lane.step: times_text(lane.visits[0], spans.until_at) for lane in spans.lanes}
    assert (found["call"], "for a worker" in found["work"]) == ("", True)


async def test_the_time_in_a_queue_is_until_the_execution_was_admitted(database: Database) -> None:
    """Until now while it waits for its slot; one that found a slot free was never queued."""
    await register(database, "workflow: [{step: start, type: own}]", metadata="concurrency: {}")
    first, second = await start(database, count=2)
    await drain(database)

    async def queued() -> list[bool]:
        found = []
        async with session(database) as connection:
            for execution_id in (first, second):
                spans = await load_spans(connection, await load_execution_details(connection, execution_id))
                found += [spans.queued_until is not None, spans.queued_until == spans.until_at]
        return found

    waiting = await queued()
    await complete_jobs(database, {})
    await drain(database)
    assert (waiting, await queued()) == ([False, False, True, True], [False, False, True, False])


async def test_a_failure_has_its_step_and_message(database: Database) -> None:
    """The message is the worker's."""
    await register(database, CHOICE)
    [execution_id] = await start(database)
    await drain(database)
    await fail_jobs(database, "it broke")
    await drain(database)
    found = await load_path(database, execution_id)
    assert (found.status, found.steps["a"].status) == ("FAILED", "FAILED")
    assert json.dumps(found.trace.errors["a"]).count("it broke") == 1


async def test_an_execution_before_its_first_turn_is_at_its_start(database: Database) -> None:
    """Its rows are written at the first turn."""
    await register(database, CHOICE)
    [execution_id] = await start(database)
    found = await load_path(database, execution_id)
    assert (found.status, found.steps, found.trace.taken) == ("RUNNING", {}, {})


async def test_an_unknown_execution_or_a_missing_playbook_is_reported(database: Database) -> None:
    """Each has its own error."""
    with pytest.raises(NotFoundFault, match="no execution 5; noetl-broker executions lists them"):
        await load_path(database, 5)
    await register(database, CHOICE)
    [execution_id] = await start(database)
    await execute(database, "delete from noetl.catalog")
    with pytest.raises(NotFoundFault, match=f"execution {execution_id} cannot be drawn: the catalog has no row"):
        await load_path(database, execution_id)
