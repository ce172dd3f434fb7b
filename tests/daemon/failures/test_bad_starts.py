"""Any inserted start: its execution runs, or fails with a reason, and affects no other."""

from __future__ import annotations

import pytest

from tests.bad_events import FORK, assert_healthy, begin, insert, outcomes, start_by_hand
from tests.brokers import broken_invariants, drain, register, rows, value
from tests.postgres import Database


async def test_a_completion_before_the_start_is_recorded(database: Database) -> None:
    """The start comes later, and the execution runs."""
    await register(database, FORK)
    await insert(database, 5, {})
    await drain(database)
    assert await outcomes(database) == ["unknown_execution"]
    await start_by_hand(database, 5, '{"path": "story"}')
    await assert_healthy(database, 5)
    turns = await rows(
        database, "select turn, outcome from noetl.turn where execution_id = 5 and turn < 3 order by turn"
    )
    assert turns == [(1, "unknown_execution"), (2, "decided")]


async def test_a_completion_before_the_start_in_one_batch_is_recorded(database: Database) -> None:
    """Both are in the inbox in the wrong order."""
    await register(database, FORK)
    await insert(database, 5, {})
    await start_by_hand(database, 5, '{"path": "story"}')
    await assert_healthy(database, 5)
    assert await outcomes(database) == ["unknown_execution"]


async def test_a_second_start_with_a_path_does_not_revive_a_failed_execution(database: Database) -> None:
    """The execution failed without a path. The second start is a duplicate."""
    await register(database, FORK)
    await start_by_hand(database, 5, "{}")
    await drain(database)
    before = await rows(database, "select * from noetl.execution")
    await start_by_hand(database, 5, '{"path": "story"}')
    await drain(database)
    assert await rows(database, "select * from noetl.execution") == before
    assert await broken_invariants(database) == {}


async def test_two_starts_of_one_execution_start_it_once(database: Database) -> None:
    """The second is a duplicate, also with another payload."""
    await register(database, FORK)
    await start_by_hand(database, 5, '{"path": "story", "workload": {"n": 1}}')
    await start_by_hand(database, 5, '{"path": "story", "workload": {"n": 2}}')
    await assert_healthy(database, 5)
    assert await value(database, "select workload ->> 'n' from noetl.execution") == "1"
    assert await value(database, "select count(*) from noetl.queue") == 2


@pytest.mark.parametrize(
    "context, catalog_id, message",
    [
        ('{"path": "nowhere"}', None, "no playbook nowhere is registered"),
        ('{"path": "story", "version": 7}', None, "no playbook story version 7 is registered"),
        ('{"path": "story"}', 404, "no playbook story is registered"),
        ("{}", None, "no playbook"),
        (None, None, "no playbook"),
        ('["story"]', None, "no playbook"),
        ('"story"', None, "no playbook"),
        ('{"path": {"a": 1}}', None, "no playbook"),
        ('{"path": "story", "workload": [1]}', None, "is no mapping"),
        ('{"path": "story", "workload": "text"}', None, "is no mapping"),
        ('{"path": "story", "workload": 0}', None, "is no mapping"),
        ('{"path": "story", "workload": false}', None, "is no mapping"),
        ('{"path": "story", "workload": ' + '{"a":' * 500 + "1" + "}" * 501, None, "nests too deeply"),
    ],
)
async def test_an_impossible_start_fails_with_a_reason(
    database: Database, context: str | None, catalog_id: int | None, message: str
) -> None:
    """The execution exists and has failed; later events come after its end."""
    _, bystander = await begin(database)
    await start_by_hand(database, 5, context, catalog_id)
    await drain(database)
    [(status, error)] = await rows(database, "select status, error from noetl.execution where execution_id = 5")
    assert status == "FAILED"
    assert message in error["message"]
    others = "select event_type from noetl.event where execution_id = 5 and event_type <> 'execution_start'"
    assert await rows(database, others) == [("execution_failed",)]
    await insert(database, 5, {})
    await assert_healthy(database, bystander)
    assert await outcomes(database) == ["after_end"]


@pytest.mark.parametrize(
    "context",
    [
        '{"path": "story"}',
        '{"path": "story", "version": null}',
        '{"path": "story", "version": "1"}',
        '{"path": "story", "version": "latest"}',
        '{"path": "story", "version": 1.0}',
        '{"path": "story", "version": 99999999999999}',
        '{"path": "story", "version": [1]}',
        '{"path": "story", "workload": null}',
    ],
)
async def test_a_start_without_a_catalog_id_finds_its_playbook(database: Database, context: str) -> None:
    """By path, and by version if one is given."""
    await register(database, FORK)
    await start_by_hand(database, 5, context)
    await assert_healthy(database, 5)
