"""Shell completions: existing paths, ids and steps, each with a description."""

from __future__ import annotations

from noetl_broker.store.admin.executions import like
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql

Offer = tuple[str, str]  # a completion and its description


async def offer_paths(connection: Connection, beginning: str) -> list[Offer]:
    """Registered playbooks whose path begins with `beginning`."""
    rows = await connection.fetch(sql("complete_paths"), _pattern(beginning))
    return [(row["path"], f"version {row['version']}") for row in rows]


async def offer_executions(connection: Connection, beginning: str) -> list[Offer]:
    """Recent executions whose id begins with `beginning`, the newest first."""
    rows = await connection.fetch(sql("complete_executions"), _pattern(beginning))
    return [(str(row["execution_id"]), f"{row['path']} {row['status']}") for row in rows]


async def offer_steps(connection: Connection, execution_id: int, beginning: str) -> list[Offer]:
    """Steps of an execution whose name begins with `beginning`, in playbook order."""
    rows = await connection.fetch(sql("complete_steps"), execution_id, _pattern(beginning))
    return [(row["step"], str(row["status"])) for row in rows]


async def offer_schedules(connection: Connection, beginning: str) -> list[Offer]:
    """Schedules whose name begins with `beginning`."""
    rows = await connection.fetch(sql("complete_schedules"), _pattern(beginning))
    return [(row["name"], row["path"]) for row in rows]


def _pattern(beginning: str) -> str:
    return f"{like(beginning.replace('*', ''))}%"
