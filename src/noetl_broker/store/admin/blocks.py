"""Finds the executions of blocks."""

from __future__ import annotations

from typing import Any

from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql

MOST_LISTED = 20
WITH_BLOCKS = frozenset({"playbook", "iterator"})  # types of steps that may have a block; of a `loop`, its task's


async def list_blocks(connection: Connection, execution_id: int) -> list[dict[str, Any]]:
    """The blocks of an execution that are live or failed, live ones first, each with its live steps as `at`."""
    return [dict(row) for row in await connection.fetch(sql("list_blocks"), execution_id, MOST_LISTED)]


async def find_child(
    connection: Connection, execution_id: int, step: str, visit: int | None = None, index: int | None = None
) -> int | None:
    """The latest child of a step, of one visit (None: of any), or of one item (None: of any); None if there is none."""
    child: int | None = await connection.fetchval(sql("find_child"), execution_id, step, visit, index)
    return child
