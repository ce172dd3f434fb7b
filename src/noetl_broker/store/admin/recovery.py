"""Recovery: dead letters, failed executions, and forks."""

from __future__ import annotations

import json

from noetl_broker.history.fork_plan import ForkPlan
from noetl_broker.store.admin.executions import Entry, Filter
from noetl_broker.store.connect.connection import Connection, fetch_planned
from noetl_broker.store.queries import sql

RECOVERY_KEY = "retry of "  # + execution id: a second retry returns the same fork


async def search_dead_letters(connection: Connection, which: Filter, *, limit: int) -> list[Entry]:
    """Dead letters with their executions, the oldest first; `reason` and `since` are those of the dead letter."""
    rows = await connection.fetch(*which.call("search_dead_letters", limit))
    return [dict(row) for row in rows]


async def search_failed(connection: Connection, which: Filter, *, limit: int, after: int = 0) -> list[Entry]:
    """Failed executions without a retry, the oldest first, without children; `after`: only with a larger id."""
    rows = await fetch_planned(connection, *which.call("search_failed", limit, after))
    return [dict(row) for row in rows]


async def list_recovered(connection: Connection, which: Filter, *, limit: int) -> list[int]:
    """Executions without a parent that a retry or a fork recovered; without a status, failed ones."""
    rows = await fetch_planned(connection, *which.call("list_recovered", limit))
    return [row["execution_id"] for row in rows]


async def count_dead_letters(connection: Connection, execution_id: int) -> int:
    """The number of dead letters of an execution."""
    return int(await connection.fetchval(sql("count_dead_letters"), execution_id))


async def start_recovery(
    connection: Connection,
    execution_id: int,
    plan: ForkPlan,
    *,
    catalog_id: int | None = None,
    by: str | None = None,
) -> int:
    """Start the fork that retries an execution; a second call returns the same fork."""
    return await fork_execution(
        connection, execution_id, plan, catalog_id=catalog_id, key=f"{RECOVERY_KEY}{execution_id}", by=by
    )


async def find_recovery(connection: Connection, execution_id: int) -> Entry | None:
    """The execution that retries this one, with its status; None if there is none."""
    row = await connection.fetchrow(sql("find_recovery"), execution_id, f"{RECOVERY_KEY}{execution_id}")
    return dict(row) if row is not None else None


async def fork_execution(
    connection: Connection,
    execution_id: int,
    plan: ForkPlan,
    *,
    catalog_id: int | None = None,
    key: str | None = None,
    by: str | None = None,
) -> int:
    """Start the fork of a plan; returns its id. `catalog_id` None: the same playbook version.

    `by`: for whom an operator forks; None: the login.
    """
    document = json.dumps({**plan.document, **({} if by is None else {"by": by})})
    return int(await connection.fetchval(sql("fork_execution"), execution_id, document, catalog_id, key))
