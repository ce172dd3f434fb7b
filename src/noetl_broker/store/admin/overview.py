"""The overview of an operator: what there is now, and what started lately. Its cost has a bound."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql

MOST_COUNTED = 10_000  # rows of each count of the present
MOST_TYPES = 5  # of jobs that nobody takes
MOST_STEPS = 3  # of one execution
READ = 10_000  # newest executions that the activity counts


async def load_present(connection: Connection) -> Mapping[str, Any]:
    """Counts of live executions, waits and unread mail, with `read_at`; MOST_COUNTED means at least so many."""
    return dict(await connection.fetchrow(sql("load_present"), MOST_COUNTED) or {})


async def list_unserved(connection: Connection) -> list[dict[str, Any]]:
    """Types of ready jobs that no worker leases, the oldest first: `type`, `jobs`, `seconds`, `execution_id`."""
    return [dict(row) for row in await connection.fetch(sql("list_unserved"), MOST_COUNTED, MOST_TYPES)]


async def load_activity(connection: Connection, *, seconds: float, parts: int, most: int) -> Mapping[str, Any]:
    """What started in the last `seconds`, of the newest READ executions: counts for `parts` equal times since `since`.

    `parts` has [index, status, count]; `playbooks` the `most` frequent paths; `failures` the `most` latest groups of
    failures that no fork or retry recovered, by path, step and type; `recovered` counts the others. `is_cut`:
    more started than were read.
    """
    return dict(await connection.fetchrow(sql("load_activity"), seconds, READ, parts, most) or {})


async def list_oldest_live(connection: Connection, *, limit: int) -> list[dict[str, Any]]:
    """The executions that live longest, without children."""
    return [dict(row) for row in await connection.fetch(sql("list_oldest_live"), limit, MOST_COUNTED)]


async def list_positions(connection: Connection, execution_ids: Collection[int]) -> dict[int, Mapping[str, Any]]:
    """Where executions are, by id: the first `steps` that run, how many are `running`, what one of them `waits_for`.

    `waits_for` is `undo` if `steps` has the undos that run now. It is `undone` if an ended execution left `running`
    actions that were not undone.
    """
    rows = await connection.fetch(sql("list_positions"), [*execution_ids], MOST_STEPS)
    return {row["execution_id"]: dict(row) for row in rows}
