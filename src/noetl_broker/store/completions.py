"""What a shell offers while somebody types: paths, ids and steps that are there, each with a word about it."""

from __future__ import annotations

from noetl_broker.store.executions import like
from noetl_broker.store.pool import Connection
from noetl_broker.store.queries import sql

Offer = tuple[str, str]  # what may be typed, and what it is


async def offer_paths(connection: Connection, beginning: str) -> list[Offer]:
    """Registered playbooks whose path begins so."""
    rows = await connection.fetch(sql("complete_paths"), _pattern(beginning))
    return [(row["path"], f"version {row['version']}") for row in rows]


async def offer_executions(connection: Connection, beginning: str) -> list[Offer]:
    """Late executions whose id begins so, the newest first."""
    rows = await connection.fetch(sql("complete_executions"), _pattern(beginning))
    return [(str(row["execution_id"]), f"{row['path']} {row['status']}") for row in rows]


async def offer_steps(connection: Connection, execution_id: int, beginning: str) -> list[Offer]:
    """Steps of an execution whose name begins so, in the order of its playbook."""
    rows = await connection.fetch(sql("complete_steps"), execution_id, _pattern(beginning))
    return [(row["step"], str(row["status"])) for row in rows]


def _pattern(beginning: str) -> str:
    return f"{like(beginning.replace('*', ''))}%"
