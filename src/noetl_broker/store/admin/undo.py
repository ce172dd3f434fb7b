"""What executions have to undo: its state for people."""

from __future__ import annotations

from typing import Any, NamedTuple

from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql

Entry = dict[str, Any]
MOST_LEFT = 20  # in one answer


class UndoTarget(NamedTuple):
    """Visits of a step, or its items, that are left to undo. `by_child`: a child of each undoes what it did."""

    step: str
    of_items: bool
    by_child: bool


async def list_undo_targets(connection: Connection, execution_id: int, *, unknown: bool = False) -> list[UndoTarget]:
    """What `undo_execution` would undo."""
    return [UndoTarget(*row) for row in await connection.fetch(sql("list_undo_targets"), execution_id, unknown)]


async def load_undo(connection: Connection, execution_id: int, *, as_reader: bool = False) -> Entry | None:
    """What an execution has to undo: `counts` by status, `left` (with errors), `status` of the undo after the end.

    `left` has what runs, failed, is unknown or open, MOST_LEFT of it. None if it never had anything to undo.
    """
    rows = await connection.fetch(sql("count_undos"), execution_id)
    if not rows:
        return None
    statement = sql("list_undos_for_readers" if as_reader else "list_undos")
    left = [dict(row) for row in await connection.fetch(statement, execution_id, MOST_LEFT)]
    return {"counts": {row["status"]: row["rows"] for row in rows}, "left": left, "status": rows[0]["undo_status"]}


async def list_draining(connection: Connection, execution_id: int) -> list[Entry]:
    """Visits (`step`, `visit`) that are over, but whose success would be undone."""
    return [dict(row) for row in await connection.fetch(sql("list_draining"), execution_id)]


class UndoObstacle(NamedTuple):
    """What keeps an execution from a retry that takes over its results; its descendants count, too.

    `done` counts visits and items that were undone. `undoing` and `left`: an execution that undoes now, and one that
    left something. `abandoned`: an undo was given up, and what it left is not `left`.
    """

    done: int
    undoing: int | None
    left: int | None
    abandoned: bool


async def find_undo_obstacle(connection: Connection, execution_id: int) -> UndoObstacle:
    """What keeps an execution from a retry that takes over its results."""
    row = await connection.fetchrow(sql("undo_obstacle"), execution_id)
    return UndoObstacle(0, None, None, abandoned=False) if row is None else UndoObstacle(*row)
