"""Replay re-runs every decision from the turns and the stored events, and reports differences."""

from __future__ import annotations

import pytest

from noetl_broker.history.replay import Difference, Replay, replay_history, sentences
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin.history import Versions, load_history
from noetl_broker.store.admin.history_scan import (
    MOST_BYTES,
    MOST_TURNS,
    HistorySize,
    group_into_batches,
    read,
)
from noetl_broker.store.connect.connection import Connection
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.histories import run_eventful
from tests.postgres import Database
from tests.sessions import session

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
    """Run one execution with a fan-out, a failure, a large result, a duplicate and an unknown event; give its id."""
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


async def differences(database: Database, execution_id: int) -> list[str]:
    """Give the differences of a replay."""
    async with session(database) as connection:
        return await differences_on(connection, execution_id)


async def differences_on(connection: Connection, execution_id: int) -> list[str]:
    """Give the differences of a replay, on this connection."""
    return sentences(replay_history(await load_history(connection, execution_id, PlaybookRules()))[1])


async def differences_in_parts(database: Database, execution_id: int, size: int) -> list[str]:
    """Give the differences of a replay that reads so many turns at a time."""
    async with session(database) as connection:
        return await differences_in_parts_on(connection, execution_id, size)


async def differences_in_parts_on(connection: Connection, execution_id: int, size: int) -> list[str]:
    """Give the differences of a replay that reads so many turns at a time, on this connection."""
    found: list[Difference] = []
    replay: Replay | None = None
    long = HistorySize(execution_id, turns=size * 1000, bytes=MOST_BYTES * 1000)
    async for parts in read(connection, [long], Versions(PlaybookRules())):
        for part in parts:
            assert len(part.turns) <= size
            replay = replay or Replay(part.history, in_parts=True)
            replay.add_jobs(part.jobs or {})
            for turn in part.turns:
                found += replay.apply(turn).differences
            if part.last:
                found += replay.finish(part.unlinked)
    return sentences(found)


async def test_an_untouched_history_gives_no_difference(database: Database, history: int) -> None:
    """With recorded times and ids, a large result, a retry and duplicates."""
    assert await differences(database, history) == []
    for size in (1, 3, 100):
        assert await differences_in_parts(database, history, size) == []


async def test_children_and_items_give_no_difference(database: Database) -> None:
    """The parent's history and a child's, whole or in parts; also of a running execution."""
    await run_eventful(database)
    await start(database, payload={"rounds": 3})
    await drain(database)
    ids = await rows(database, "select execution_id from noetl.execution")
    assert len(ids) == 5
    for (execution_id,) in ids:
        assert await differences(database, execution_id) == []
        assert await differences_in_parts(database, execution_id, 2) == []


async def test_a_turn_in_the_meta_of_a_foreign_event_is_ignored(database: Database, history: int) -> None:
    """A `turn` in the meta of an event that a turn has read makes it no event of the broker."""
    insert = (
        "insert into noetl.event (execution_id, event_type, node_name, meta) values ($1, 'action_completed', 'a', $2)"
    )
    for number in (1, 3, 99, "x", None):
        await execute(database, insert, history, {"turn": number})
    await drain(database)
    assert await differences(database, history) == []
    assert await differences_in_parts(database, history, 2) == []


async def test_a_playbook_that_did_not_compile_is_replayed_as_failed(database: Database) -> None:
    """A later version of the broker may read it: there is no difference."""
    await register(database, "workflow:\n- {step: start, next: a}\n- {step: a, retry: soon}\n")
    [execution_id] = await start(database)
    await drain(database)
    assert "does not compile" in await value(database, "select error ->> 'message' from noetl.execution")
    await execute(database, "update noetl.catalog set content = replace(content, 'soon', '2')")
    assert await differences(database, execution_id) == []


def test_small_histories_are_loaded_together() -> None:
    """Neighbours, while they are few and small; a long one is loaded alone."""
    small, large = HistorySize(1, 10, 100), HistorySize(2, 10, MOST_BYTES + 1)
    loads = [*group_into_batches([small, small, large, small, HistorySize(3, MOST_TURNS, 0), small])]
    assert loads == [[small, small], [large], [small], [HistorySize(3, MOST_TURNS, 0)], [small]]
    assert [len(load) for load in group_into_batches([small] * 250)] == [100, 100, 50]
    assert ([large.long], small.long) == ([True], False)


CHANGES = [
    (
        "update noetl.event set result = '{\"ok\": 0}' where event_type = 'action_completed' and node_name = 'b'",
        "b",
    ),
    ("update noetl.catalog set content = replace(content, 'b.ok', 'not b.ok')", "step_completed"),
    (
        "update noetl.queue set action = replace(action, '\"n\":5', '\"n\":6') where node_name = 'a'",
        "job a action",
    ),
    ("update noetl.queue set priority = 9 where node_name = 'j'", "job j priority"),
    ("delete from noetl.queue where node_name = 'j'", "job j"),
    ("update noetl.workflow set status = 'FAILED' where step_name = 'a'", "tracking row a"),
    ("update noetl.workflow set visits = 2 where step_name = 'j'", "tracking row j"),
    ("update noetl.execution set result = '{\"j\": 0}'", "end of the execution"),
    ('update noetl.execution_state set tokens = \'{"status": "RUNNING"}\'', "state"),
    ("delete from noetl.event where event_type = 'step_started' and node_name = 'j'", "event 2"),
    (
        "update noetl.event set node_name = 'b' where event_type = 'step_completed' and node_name = 'a'",
        "event 1 (step_completed) node_name",
    ),
    ("update noetl.event set node_name = 'x' where event_type = 'execution_complete'", "node_name"),
    ("update noetl.event set meta = meta || '{\"turn\": 77}' where event_type = 'execution_complete'", "turn 77"),
    ("delete from noetl.turn where turn = 3", "turn 3: it is missing"),
    ("update noetl.turn set outcome = 'duplicate' where turn = 2", "outcome"),
]


async def test_every_change_of_a_history_is_reported(database: Database, history: int) -> None:
    """One changed condition, event, job, tracking row or turn is named. Each change is rolled back."""
    unreported: list[tuple[str, list[str]]] = []
    async with session(database) as own:
        for tampering, complaint in CHANGES:
            transaction = own.transaction(isolation="repeatable_read")
            await transaction.start()
            await own.execute(tampering)
            ways = [await differences_on(own, history), await differences_in_parts_on(own, history, 2)]
            unreported += [(tampering, found) for found in ways if not any(complaint in text for text in found)]
            await transaction.rollback()
    assert unreported == []
