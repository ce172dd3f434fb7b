"""Executions whose values were erased: what they still answer, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from noetl_broker.errors import ErasedFault
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.connect.connection import Connection, call
from noetl_broker.store.queries import sql


async def erased_at(connection: Connection, execution_id: int) -> datetime | None:
    """When the values of an execution were erased; None: they are there, or there is no such execution."""
    found: datetime | None = await connection.fetchval(sql("erased_at"), execution_id)
    return found


async def refuse_erased(connection: Connection, execution_id: int) -> None:
    """Raise ErasedFault for an execution whose values were erased."""
    if await erased_at(connection, execution_id) is not None:
        raise ErasedFault(execution_id)


async def count_erased(connection: Connection, which: Filter) -> int:
    """How many executions of a filter were erased."""
    return int(await connection.fetchval(*which.call("count_erased")))


async def erase_some(
    connection: Connection, execution_ids: Sequence[int], by: str | None = None
) -> dict[int, tuple[int, str | None]]:
    """Erase executions in one transaction: by id, how many were erased with it, or why it was not.

    One that was erased already counts 0: with its parent, in an earlier transaction of the same call.
    """
    found = {row["execution_id"]: row["erased"] for row in await connection.fetch(sql("list_erased"), [*execution_ids])}
    missing = "no execution {}; noetl-broker executions lists them"
    answers: dict[int, tuple[int, str | None]] = {
        each: (0, None if each in found else missing.format(each)) for each in execution_ids
    }
    wanted = [each for each, is_erased in found.items() if not is_erased]
    for one in await call(connection, "erase_executions", wanted, by) if wanted else ():
        each, why = one["execution_id"], one["reason"]
        refused = None if why is None else f"execution {each} cannot be erased: {why}; {one['remedy']}"
        answers[each] = one["executions"], refused
    return answers
