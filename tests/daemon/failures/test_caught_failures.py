"""Failures that a `catch` handles, in the database: what stays is read in later turns and copied into forks."""

from __future__ import annotations

from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.daemon.history.test_forks import answer, fork
from tests.postgres import Database

ORDER = """
workflow:
- {step: start, next: charge}
- step: charge
  type: http
  url: x
  output: {id: "{{ result.id }}", sum: "{{ result.sum }}"}
  next: {when: "{{ charge.amount > 5 }}", step: ship}
  catch: {step: refund, args: {id: "{{ charge.id }}"}}
- {step: ship, type: http, url: x}
- {step: refund, type: http, url: x, next: told}
- {step: told, type: http, url: x, args: {sum: "{{ charge.sum }}", why: "{{ charge.error.type }}"}}
"""
JOB = "select action::jsonb -> 'args' from noetl.queue where execution_id = $1 and node_name = $2"


async def test_the_data_and_the_error_of_a_caught_step_are_read_in_later_turns(database: Database) -> None:
    """From its step_failed; a fork takes both over."""
    await register(database, ORDER)
    [execution_id] = await start(database)
    await drain(database)
    await answer(database, "charge", {"id": "c1", "sum": 7, "junk": "long"})
    await answer(database, "refund", {"ok": True})
    assert await value(database, JOB, execution_id, "told") == {"sum": 7, "why": "template"}
    await answer(database, "told")
    [(status, visit_status, carrier, data)] = await rows(
        database,
        "select x.status, w.status, e.event_type, e.result from noetl.execution x"
        " join noetl.workflow w on w.execution_id = x.execution_id and w.step_id = 'charge'"
        " join noetl.event e on e.execution_id = x.execution_id and e.event_id = w.result_event_id"
        " where x.execution_id = $1",
        execution_id,
    )
    assert (status, visit_status, carrier, data) == ("COMPLETED", "FAILED", "step_failed", {"id": "c1", "sum": 7})
    assert await inconsistencies(database) == {}
    new = await fork(database, execution_id, "told")
    await drain(database)
    assert await value(database, JOB, new, "told") == {"sum": 7, "why": "template"}


ITEMS = """
workflow:
- {step: start, next: each}
- step: each
  type: iterator
  collection: "{{ workload.divisors }}"
  element: n
  mode: async
  concurrency: 2
  task: {type: playbook, path: child, args: {n: "{{ 1 / n }}"}}
  catch: {step: told, args: {why: "{{ error.type }}"}}
- {step: told, type: http, url: x}
"""


async def test_an_iterator_that_a_catch_ends_leaves_no_items(database: Database) -> None:
    """In the turn in which it began, and in a later one."""
    await register(database, ITEMS)
    await register(database, "workflow: [{step: start, next: a}, {step: a, type: wait, for: 1h}]", path="child")
    at_once, later = [(await start(database, payload={"divisors": given}))[0] for given in ([1, 0], [1, 2, 0])]
    await drain(database)
    assert await value(database, JOB, at_once, "told") == {"why": "template"}
    of_first = "select child_execution_id from noetl.iteration where execution_id = $1 and index = 0"
    await execute(database, "select noetl.cancel_execution($1)", await value(database, of_first, later))
    await drain(database)
    assert await value(database, JOB, later, "told") == {"why": "child_cancelled"}
    await complete_jobs(database)
    await drain(database)
    assert await inconsistencies(database) == {}
