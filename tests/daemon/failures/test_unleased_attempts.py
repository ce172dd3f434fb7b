"""A producer reports the failure of an attempt that no worker has leased: the next lease is a later attempt."""

from __future__ import annotations

import pytest

from noetl_broker.node_ids import node_id
from tests.brokers import broken_invariants, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.undos import STATUS, UNDOS, complete, fail, lease

STEP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, retry: {max_attempts: 2, initial_delay: 0}}
"""
ITEM = """
workflow:
- {step: start, next: a}
- step: a
  type: iterator
  collection: [1]
  element: n
  task: {type: python, code: x, retry: {max_attempts: 2, initial_delay: 0}}
"""
UNDO = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, compensate: {type: python, code: x, retry: {max_attempts: 2, initial_delay: 0}}, next: b}
- {step: b, type: python, code: x}
"""  # noqa: E501 - a line of a playbook
FAILED = """
insert into noetl.event (execution_id, event_type, node_id, node_name, error, meta)
values ($1, 'action_failed', $2, 'a', $3, $4)"""


async def _report(
    database: Database, execution: int, attempt: int, *, index: int | None = None, undo: bool = False
) -> None:
    node = node_id(execution, "a", 1, index, undo=undo)
    await execute(database, FAILED, execution, node, {"message": "from outside"}, {"attempt": attempt})


@pytest.mark.parametrize("body, index", [(STEP, None), (ITEM, 0)], ids=["step", "item"])
@pytest.mark.parametrize("together", [False, True], ids=["later", "in one transaction"])
async def test_the_worker_fails_a_later_attempt(
    database: Database,
    body: str,
    index: int | None,
    together: bool,
) -> None:
    """Its failure is not taken for the one that was counted, so the step ends. The job may be new in the same batch."""
    attempt = 7
    await register(database, body)
    [execution] = await start(database)
    if not together:
        await drain(database)
    await _report(database, execution, attempt, index=index)
    await drain(database)
    [job] = (await lease(database)).values()
    assert job[1] == attempt + 1
    await fail(database, job, "the worker's", retryable=True)
    await drain(database)
    assert await value(database, STATUS, execution) == "FAILED"
    assert await broken_invariants(database) == {}


async def test_the_worker_fails_a_later_attempt_of_an_undo(database: Database) -> None:
    """As of a step."""
    await register(database, UNDO)
    [execution] = await start(database)
    await drain(database)
    await complete(database, (await lease(database))["a"])
    await drain(database)
    await fail(database, (await lease(database))["b"])
    await drain(database)
    await _report(database, execution, 1, undo=True)
    await drain(database)
    [job] = (await lease(database)).values()
    assert job[1] == 2
    await fail(database, job, "the worker's", retryable=True)
    await drain(database)
    assert await value(database, STATUS, execution) == "FAILED"
    assert await rows(database, UNDOS, execution) == [("a", "failed")]
    assert await broken_invariants(database) == {}


@pytest.mark.parametrize(
    "body, index, attempt", [(STEP, None, 10**9), (ITEM, 0, 2**31 - 1), (STEP, None, 10**30), (ITEM, 0, -1)]
)
async def test_an_attempt_that_is_no_number_of_a_lease_counts_as_not_given(
    database: Database, body: str, index: int | None, attempt: int
) -> None:
    """It cannot bring the number of the next lease out of its range."""
    await register(database, body)
    [execution] = await start(database)
    await drain(database)
    await _report(database, execution, attempt, index=index)
    await drain(database)
    assert await rows(database, "select status, attempts from noetl.queue where node_type = 'python'") == [("retry", 0)]
    [job] = (await lease(database)).values()
    await complete(database, job)
    await drain(database)
    assert await value(database, STATUS, execution) == "COMPLETED"
    assert await broken_invariants(database) == {}
