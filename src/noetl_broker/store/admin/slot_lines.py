"""Slots for people: who holds them, and the line of those that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noetl_broker.store.queries import sql
from noetl_broker.text import slot_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from noetl_broker.store.connect.connection import Connection

MOST_COUNTED = 10_000  # of those that wait for one slot


async def slots_of(connection: Connection, execution_ids: Sequence[int]) -> list[dict[str, Any]]:
    """The slots that executions hold or wait for, with `name`, `holders`, `before` and `waiting`."""
    return [_entry(row) for row in await connection.fetch(sql("list_slots_of"), [*execution_ids])]


async def list_slots(
    connection: Connection, *, path: str | None = None, after: tuple[str, str] = ("", ""), limit: int = 100
) -> list[dict[str, Any]]:
    """Slots by path and key, from `after` on: who may hold them, who does, and how many wait.

    `waiting` counts up to MOST_COUNTED. The path of a schedule's slot is empty: its key is the name.
    """
    rows = await connection.fetch(sql("list_claimed_slots"), path, *after, limit, MOST_COUNTED)
    return [_entry(row) for row in rows]


async def list_line(
    connection: Connection, path: str, key: str, *, after: int = 0, limit: int = 100
) -> list[dict[str, Any]]:
    """The executions that hold a slot or wait for it, by number, from the one after number `after`."""
    return [dict(row) for row in await connection.fetch(sql("list_line"), path, key, after, limit)]


def _entry(row: Any) -> dict[str, Any]:
    return {**row, "holders": [*row["holders"]], "name": slot_name(row["path"], row["key"], row["label"] or "")}
