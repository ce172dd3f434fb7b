"""Executions whose values were erased: what they still answer, and what is refused."""

from __future__ import annotations

from datetime import datetime

from noetl_broker.errors import ErasedFault
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.connect.connection import Connection
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
