"""What executions have to undo: its state for people."""

from __future__ import annotations

from typing import Any, NamedTuple

from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql

Entry = dict[str, Any]
MOST_LEFT = 20  # in one answer


class UndoTarget(NamedTuple):
    """Visits of a step, or its items, that an undo would take over. `by_child`: a child of each undoes what it did."""

    step: str
    of_items: bool
    by_child: bool


async def list_undo_targets(connection: Connection, execution_id: int, *, unknown: bool = False) -> list[UndoTarget]:
    """What `undo_execution` would take over."""
    return [UndoTarget(*row) for row in await connection.fetch(sql("list_undo_targets"), execution_id, unknown)]


async def load_undo(connection: Connection, execution_id: int, *, as_reader: bool = False) -> Entry | None:
    """What an execution has to undo: `counts` by status, `left` (with errors), `executions` that took rows over.

    `left` has what runs, failed, is unknown or open, MOST_LEFT of it. None if it never had anything to undo.
    """
    counts = {row["status"]: row["rows"] for row in await connection.fetch(sql("count_undos"), execution_id)}
    if not counts:
        return None
    statement = sql("list_undos_for_readers" if as_reader else "list_undos")
    left = [dict(row) for row in await connection.fetch(statement, execution_id, MOST_LEFT)]
    takers = [dict(row) for row in await connection.fetch(sql("list_undo_executions"), execution_id)]
    return {"counts": counts, "left": left, "executions": takers}


async def list_draining(connection: Connection, execution_id: int) -> list[Entry]:
    """Visits (`step`, `visit`) that are over, but whose success would be undone."""
    return [dict(row) for row in await connection.fetch(sql("list_draining"), execution_id)]


class UndoObstacle(NamedTuple):
    """What an execution and those that undo it did: rows that are `done`, rows that are left, and one that runs.

    `abandoned`: an undo was abandoned, and its rows are not counted as left. `origin`: the
    execution whose actions this one undoes, if it is an undo execution. `child`: one below it that left something;
    `undoing`: one below it that undoes something now.
    """

    done: int
    left_over: int
    running: int | None
    origin: int | None = None
    abandoned: bool = False
    child: int | None = None
    undoing: int | None = None


async def find_undo_obstacle(connection: Connection, execution_id: int) -> UndoObstacle:
    """What keeps an execution from a retry that takes over its results."""
    row = await connection.fetchrow(sql("undo_obstacle"), execution_id)
    return UndoObstacle(*row) if row is not None else UndoObstacle(0, 0, None)
