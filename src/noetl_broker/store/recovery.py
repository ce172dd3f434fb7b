"""What brings executions back: mail that was set aside, executions that failed, forks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from noetl_broker.broker.plans import Plan, plan_retry
from noetl_broker.playbook.findings import Rules as PlaybookRules
from noetl_broker.store.executions import Entry, like
from noetl_broker.store.history import load_history
from noetl_broker.store.pool import Connection
from noetl_broker.store.queries import sql

RETRY_KEY = "retry of "  # and the id of the execution: whoever asks twice gets the same new one


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which of many are meant; all None: all of them.

    `path` and `reason` may hold `*` for any run of characters, `reason` is looked for anywhere. `since` is a moment, or
    so many seconds before the database's now. `failed_step` is for executions alone.
    """

    path: str | None = None
    reason: str | None = None
    since: datetime | float | None = None
    failed_step: str | None = None

    @property
    def arguments(self) -> tuple[object, ...]:
        """The first parameters of both searches."""
        at = self.since if isinstance(self.since, datetime) else None
        seconds = float(self.since) if isinstance(self.since, (int, float)) else None
        path = None if self.path is None else like(self.path)
        reason = None if self.reason is None else like(self.reason, anywhere=True)
        return path, reason, at, seconds


async def search_dead_letters(connection: Connection, wish: Wish, *, limit: int) -> list[Entry]:
    """Mail that was set aside, the oldest first, each with the execution that it is of."""
    rows = await connection.fetch(sql("search_dead_letters"), *wish.arguments, limit)
    return [dict(row) for row in rows]


async def search_failed(connection: Connection, wish: Wish, *, limit: int) -> list[Entry]:
    """Failed executions that nobody has brought back, the oldest first; children are left to their parents."""
    rows = await connection.fetch(sql("search_failed"), *wish.arguments, wish.failed_step, limit, RETRY_KEY)
    return [dict(row) for row in rows]


async def put_back(connection: Connection, execution_id: int) -> int:
    """Give mail that was set aside or lost back to the broker; how many events. Raises NotFoundFault."""
    return int(await connection.fetchval(sql("put_back"), execution_id))


async def count_dead_letters(connection: Connection, execution_id: int) -> int:
    """How much mail of an execution is set aside."""
    return int(await connection.fetchval(sql("count_dead_letters"), execution_id))


async def find_brought_back(connection: Connection, execution_id: int) -> Entry | None:
    """The execution that brings this one back, with its status; None where nobody has asked for it."""
    row = await connection.fetchrow(sql("find_brought_back"), execution_id, f"{RETRY_KEY}{execution_id}")
    return dict(row) if row is not None else None


async def fork_execution(
    connection: Connection, execution_id: int, plan: Plan, *, catalog_id: int | None = None, key: str | None = None
) -> int:
    """Start an execution that takes over what the plan says; `catalog_id` None: on the same version. Gives its id."""
    document = json.dumps(plan.document)
    return int(await connection.fetchval(sql("fork_execution"), execution_id, document, catalog_id, key))


async def bring_back(connection: Connection, execution_id: int, rules: PlaybookRules) -> tuple[int, Plan]:
    """Fork a failed execution from where it failed, once; gives the new one, the same however often it is asked."""
    plan = plan_retry(await load_history(connection, execution_id, rules))
    key = f"{RETRY_KEY}{execution_id}"
    return await fork_execution(connection, execution_id, plan, key=key), plan
