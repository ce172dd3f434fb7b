"""Branches that lose a race and fail: what they leave open, and how the execution ends."""

from __future__ import annotations

import pytest

from tests.brokers import drain, execute, register, rows, start, value
from tests.consistency import inconsistencies
from tests.postgres import Database

RACE = """
workflow:
- {step: start, next: [quick, slow]}
- {step: quick, type: python, code: x, next: first}
- {step: slow, type: python, code: x, next: MORE}
- {step: first, join: any, type: python, code: x, next: end}
- {step: end, result: "{{ [first, slow.status, slow.error.message | default('none')] }}"}
"""
FAN = """- step: fan
  type: iterator
  collection: "{{ slow }}"
  element: row
  mode: async
  TASK
  next: first
"""
COMPLETE = "select noetl.complete_job(queue_id, 'w', attempts, $2) from noetl.lease_jobs('w', 9) where node_name = $1"


async def win(database: Database, body: str) -> None:
    """Register the playbook and let `quick` win: the job of `slow` is leased, `first` is queued."""
    await register(database, body)
    await start(database)
    await drain(database)
    await execute(database, COMPLETE, "quick", 1)
    await drain(database)


@pytest.mark.parametrize(
    "task",
    [
        'task: {type: playbook, path: child, args: {v: "{{ row[0] }}"}}',
        'distribute: true\n  task: {type: python, code: x, args: {v: "{{ row[0] }}"}}',
    ],
)
async def test_items_that_a_failed_race_loser_started_are_withdrawn(database: Database, task: str) -> None:
    """The last of three items cannot be started: no child and no job of the others stays open."""
    await register(database, "workflow: [{step: start, next: a}, {step: a, type: python, code: x}]", path="child")
    await win(database, RACE.replace("MORE", "fan") + FAN.replace("TASK", task))
    await execute(database, COMPLETE.replace("noetl.lease_jobs('w', 9)", "noetl.queue"), "slow", [[1], [2], []])
    await drain(database)
    open_jobs = "select node_name from noetl.queue where status in ('queued', 'retry', 'delegated')"
    assert await rows(database, open_jobs) == [("first",)]
    assert await value(database, "select count(*) from noetl.execution where path = 'child' and ended_at is null") == 0
    await execute(database, COMPLETE, "first", 3)
    await drain(database)
    status = "select status, result -> 0, result -> 1 from noetl.execution where path = 'story'"
    assert await rows(database, status) == [("COMPLETED", 3, "COMPLETED")]
    assert await inconsistencies(database) == {}
