"""Replay: from the turns and the stored events alone, every decision is retaken and held against what was written."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from noetl_broker.broker.replay import Difference, Retaking, compare_end, retake
from noetl_broker.playbook.findings import Rules as PlaybookRules
from noetl_broker.store.histories import MOST_BYTES, MOST_TURNS, PATIENCE_SECONDS, Weight, pack, read
from noetl_broker.store.history import Versions, load_history
from noetl_broker.store.pool import connect
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.histories import run_eventful
from tests.postgres import Database

FORKED = """
workload: {n: 1, pad: "{{ 'x' * 10 }}"}
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, args: {n: "{{ workload.n }}", at: "{{ now() }}", id: "{{ uuid() }}"}, next: j}
- {step: b, type: python, code: x, retry: 2, next: [{when: "b.ok", step: j}]}
- {step: j, type: python, code: x, args: {a: "{{ a }}", big: "{{ b.big | length }}"}, next: end}
- {step: end, result: {j: "{{ j.ok }}"}}
"""


@pytest.fixture
async def history(database: Database) -> int:
    """Run one execution with a fan-out, a failure, a large result, a duplicate and a stranger; give its id."""
    await register(database, FORKED)
    [execution_id] = await start(database, payload={"n": 5})
    await drain(database)
    await execute(
        database,
        "select noetl.fail_job(queue_id, 'w', attempts, '{\"message\": \"no\"}')"
        " from noetl.lease_jobs('w', 9) where node_name = 'b'",
    )
    await drain(database)
    await execute(database, "update noetl.queue set available_at = now() where status = 'retry'")
    await execute(database, "update noetl.queue set status = 'queued' where status = 'leased'")
    for _ in range(2):
        await complete_jobs(database, {"ok": True, "big": "y" * 20_000})
        await drain(database)
    insert = "insert into noetl.event (execution_id, event_type, node_name) values ($1, $2, $3)"
    await execute(database, insert, execution_id, "action_completed", "a")
    await execute(database, insert, execution_id, "a_word_of_nobody", "a")
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "COMPLETED"
    return execution_id


async def differences(database: Database, execution_id: int, *types: str) -> list[str]:
    """Everything that a replay of the execution finds, by settings with these further step types."""
    connection = await connect(database.dsn, name="test")
    try:
        found = await load_history(connection, execution_id, PlaybookRules(extra_step_types=frozenset(types)))
    finally:
        await connection.close()
    turns = list(retake(found))
    return [text for turn in turns for text in turn.differences] + compare_end(found, turns)


async def differences_in_parts(database: Database, execution_id: int, size: int) -> list[str]:
    """Everything that a replay finds where the history comes in parts of so many turns."""
    found: list[Difference] = []
    retaking: Retaking | None = None
    long = Weight(execution_id, turns=size * 1000, bytes=MOST_BYTES * 1000)
    connection = await connect(database.dsn, name="test")
    try:
        async for parts in read(connection, [long], Versions(PlaybookRules())):
            for part in parts:
                assert len(part.turns) <= size
                retaking = retaking or Retaking(part.history, in_parts=True)
                retaking.tell_jobs(part.jobs or {})
                for turn in part.turns:
                    found += retaking.take(turn).found
                if part.last:
                    found += [Difference(None, stray, None, None) for stray in part.strays] + retaking.end()
    finally:
        await connection.close()
    return [sentence for difference in found for sentence in difference.sentences()]


async def test_an_untouched_history_gives_no_difference(database: Database, history: int) -> None:
    """Recorded times and ids, a large result, a retry, duplicates: all decide the same again."""
    assert await differences(database, history) == []
    for size in (1, 3, 100):
        assert await differences_in_parts(database, history, size) == []


async def test_children_and_items_give_no_difference(database: Database) -> None:
    """Neither the parent's history nor a child's, whole or in parts; nor that of an execution that still runs."""
    await run_eventful(database)
    await start(database, payload={"rounds": 3})
    await drain(database)
    ids = await rows(database, "select execution_id from noetl.execution")
    assert len(ids) == 5
    for (execution_id,) in ids:
        assert await differences(database, execution_id) == []
        assert await differences_in_parts(database, execution_id, 2) == []


async def test_a_long_history_is_waited_for_as_long_as_the_server_may_sort_it(
    database: Database, history: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sorted when its first rows are asked for: the driver's own patience is that of a small statement."""
    waited = set()
    fetch = asyncpg.cursor.Cursor.fetch

    async def told(cursor: Any, count: int, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - the driver's
        waited.add(timeout)
        return await fetch(cursor, count, timeout=timeout)

    monkeypatch.setattr(asyncpg.cursor.Cursor, "fetch", told)
    assert await differences_in_parts(database, history, 2) == []
    assert waited == {PATIENCE_SECONDS}


async def test_an_event_of_somebody_else_may_say_what_it_likes(database: Database, history: int) -> None:
    """A `turn` in the meta of an event that a turn has read makes it no event of the broker."""
    insert = (
        "insert into noetl.event (execution_id, event_type, node_name, meta) values ($1, 'action_completed', 'a', $2)"
    )
    for number in (1, 3, 99, "x", None):
        await execute(database, insert, history, {"turn": number})
    await drain(database)
    assert await differences(database, history) == []
    assert await differences_in_parts(database, history, 2) == []


async def test_a_playbook_that_did_not_compile_then_did_not(database: Database) -> None:
    """The settings of today know its type, those of the broker that refused it did not: its history is the same."""
    await register(database, "workflow:\n- {step: start, next: a}\n- {step: a, type: dbt}\n")
    [execution_id] = await start(database)
    await drain(database)
    assert "`dbt` is not known" in await value(database, "select error ->> 'message' from noetl.execution")
    assert await differences(database, execution_id, "dbt") == []


def test_small_histories_are_loaded_together() -> None:
    """Neighbours, as long as they are few and small; a long one stands alone."""
    small, large = Weight(1, 10, 100), Weight(2, 10, MOST_BYTES + 1)
    loads = [*pack([small, small, large, small, Weight(3, MOST_TURNS, 0), small])]
    assert loads == [[small, small], [large], [small], [Weight(3, MOST_TURNS, 0)], [small]]
    assert [len(load) for load in pack([small] * 250)] == [100, 100, 50]
    assert ([large.long], small.long) == ([True], False)


FAMILY = """
workload: {sizes: {long: 3, s: 1}}
workflow:
- {step: start, next: call}
- {step: call, type: playbook, path: child, next: each}
- step: each
  type: iterator
  collection: "{{ workload.sizes }}"
  element: size
  distribute: true
  task: {type: python, code: x, args: {size: "{{ size.value }}"}}
"""


async def test_a_history_with_children_and_items_gives_no_difference(database: Database) -> None:
    """A step of type playbook is a step, a mapping keeps its order, an item that never was is a stranger's."""
    await register(database, FAMILY)
    await register(database, "workflow: [{step: start}]", path="child")
    [execution_id] = await start(database)
    insert = "insert into noetl.event (execution_id, event_type, node_id) values ($1, 'action_completed', $2)"
    await drain(database)
    await execute(database, insert, execution_id, f"{execution_id}:each#1.7")
    while await value(database, "select status from noetl.execution where path = 'story'") == "RUNNING":
        await drain(database)
        await complete_jobs(database, 1)
    sizes = "select action::jsonb #>> '{args,size}' from noetl.queue where node_type = 'python' order by node_id"
    assert await rows(database, sizes) == [("1",), ("3",)]
    assert await differences(database, execution_id) == []


@pytest.mark.parametrize(
    "tampering,complaint",
    [
        (
            "update noetl.event set result = '{\"ok\": 0}' where event_type = 'action_completed' and node_name = 'b'",
            "b",
        ),
        ("update noetl.catalog set content = replace(content, 'b.ok', 'not b.ok')", "step_completed"),
        (
            "update noetl.queue set action = replace(action, '\"n\":5', '\"n\":6') where node_name = 'a'",
            "job a#1 action",
        ),
        ("update noetl.queue set priority = 9 where node_name = 'j'", "job j#1 priority"),
        ("delete from noetl.queue where node_name = 'j'", "job j#1"),
        ("update noetl.workflow set status = 'FAILED' where step_name = 'a'", "tracking row a"),
        ("update noetl.workflow set visits = 2 where step_name = 'j'", "tracking row j"),
        ("update noetl.execution set result = '{\"j\": 0}'", "end of the execution"),
        ('update noetl.execution_state set tokens = \'{"status": "RUNNING"}\'', "state"),
        ("delete from noetl.event where event_type = 'step_started' and node_name = 'j'", "event 2"),
        ("update noetl.event set meta = meta || '{\"turn\": 77}' where event_type = 'execution_complete'", "turn 77"),
        ("delete from noetl.turn where turn = 3", "turn 3: it is missing"),
        ("update noetl.turn set outcome = 'duplicate' where turn = 2", "outcome"),
    ],
)
async def test_whatever_was_changed_is_reported(
    database: Database, history: int, tampering: str, complaint: str
) -> None:
    """One changed condition, event, job, tracking row or turn is named."""
    await execute(database, tampering)
    found = await differences(database, history)
    assert found
    assert any(complaint in text for text in found), json.dumps(found, indent=1)
    in_parts = await differences_in_parts(database, history, 2)
    assert any(complaint in text for text in in_parts), json.dumps(in_parts, indent=1)
