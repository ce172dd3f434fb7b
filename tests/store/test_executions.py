"""Events are sorted by turns, not by ids or clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from noetl_broker.store.admin.executions import in_turn_order
from noetl_broker.store.admin.undo import load_undo
from tests.brokers import execute
from tests.postgres import Database
from tests.sessions import session

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)


def event(
    event_id: int,
    event_type: str,
    *,
    at: int,
    parent: int | None = None,
    node: str = "1:a",
    read: int | None = None,
    written: int | None = None,
) -> dict[str, Any]:
    """Make a row. `at` is in milliseconds; `read` and `written` are the turns that read and wrote it."""
    return {
        "event_id": event_id,
        "event_type": event_type,
        "node_id": node,
        "parent_event_id": parent,
        "created_at": BEGIN + timedelta(milliseconds=at),
        "read_in": read,
        "written_in": written,
    }


def order(*rows: dict[str, Any], read_only: bool = False) -> list[int]:
    """Return the ids in the order of the log."""
    return [row["event_id"] for row in in_turn_order(rows, read_only=read_only)]


def test_an_event_precedes_the_events_of_its_turn() -> None:
    """Its id may be the greater one."""
    assert order(
        event(9, "execution_start", at=0, read=1),
        event(1, "step_started", at=1, parent=9, written=1),
        event(2, "step_started", at=2, parent=9, written=1),
    ) == [9, 1, 2]


def test_events_are_sorted_by_turn_not_by_time() -> None:
    """Two events arrived in one order and were read in the other."""
    assert order(
        event(1, "action_completed", at=1, read=3),
        event(2, "action_completed", at=2, read=2),
        event(3, "step_completed", at=3, parent=2, written=2),
        event(4, "step_completed", at=4, parent=1, written=3),
    ) == [2, 3, 1, 4]


def test_an_event_without_a_turn_follows_its_parent() -> None:
    """It precedes the next event of the same turn."""
    assert order(
        event(1, "execution_start", at=0, read=1),
        event(2, "step_started", at=1, parent=1, node="1:a", written=1),
        event(3, "step_started", at=2, parent=1, node="1:b", written=1),
        event(4, "action_started", at=7, parent=2, node="1:a"),
        event(5, "action_started", at=5, parent=3, node="1:b"),
    ) == [1, 2, 4, 3, 5]


def test_a_second_attempt_follows_the_retry() -> None:
    """Its parent is the start of the step."""
    assert order(
        event(1, "step_started", at=0, parent=0, written=1),
        event(2, "action_started", at=1, parent=1),
        event(3, "action_failed", at=2, parent=1, read=2),
        event(4, "action_retry", at=3, parent=3, written=2),
        event(5, "action_started", at=9, parent=1),
    ) == [1, 2, 3, 4, 5]


def test_an_event_without_a_parent_is_sorted_by_time() -> None:
    """The worker of a NoETL server names no parent."""
    assert order(
        event(1, "execution_start", at=0, read=1),
        event(2, "step_started", at=1, parent=1, written=1),
        event(3, "action_completed", at=5, read=2),
        event(4, "action_started", at=3),
    ) == [1, 2, 4, 3]


def test_unread_events_are_last_or_omitted() -> None:
    """They have no turn yet."""
    rows = (event(1, "action_completed", at=0), event(2, "execution_start", at=1, read=1))
    assert order(*rows) == [2, 1]
    assert order(*rows, read_only=True) == [2]


async def test_what_is_left_undone_is_in_the_order_of_the_undo(database: Database) -> None:
    """The last success first, for a reader too."""
    undos = """
        insert into noetl.undo (execution_id, node_id, step, visit, turn, status)
        select 1, '1:' || step, step, 1, turn, 'open'
        from (values ('first', 2), ('last', 4), ('second', 3)) v (step, turn)"""
    await execute(database, undos)
    async with session(database) as own:
        found = [await load_undo(own, 1, as_reader=as_reader) for as_reader in (False, True)]
    assert [[one["step"] for one in (undo or {})["left"]] for undo in found] == [["last", "second", "first"]] * 2
