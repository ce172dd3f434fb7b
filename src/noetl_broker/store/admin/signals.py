"""Signals for commands and clients, and the playbooks that signals start."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg

from noetl_broker.playbook.model import OnSignal
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql

KEEP = timedelta(days=7)


async def send_signal(
    connection: Connection,
    name: str,
    key: str,
    payload: str | None,
    *,
    idempotency_key: str | None = None,
    keep: timedelta = KEEP,
    by: str | None = None,
) -> int:
    """Send a signal, its payload as JSON text, to whoever waits for its name and key; returns its id."""
    sent: int = await connection.fetchval(sql("send_signal"), name, key, payload, idempotency_key, keep, by)
    return sent


async def signal_execution(
    connection: Connection,
    execution_id: int,
    name: str,
    payload: str | None,
    *,
    idempotency_key: str | None = None,
    by: str | None = None,
) -> int | None:
    """Send a signal to one execution; returns its id, None if the execution has ended. Raises NotFoundFault."""
    arguments = (execution_id, name, payload, idempotency_key, by)
    sent: int | None = await connection.fetchval(sql("signal_execution"), *arguments)
    return sent


async def keys_of_waits(connection: Connection, execution_id: int, name: str) -> list[str]:
    """The keys of the open waits of an execution for a name; none if the login may not read them."""
    try:
        return [row["key"] for row in await connection.fetch(sql("keys_of_waits"), execution_id, name)]
    except asyncpg.InsufficientPrivilegeError:
        return []


async def list_signal_waits(
    connection: Connection, *, name: str | None = None, key: str | None = None, limit: int
) -> list[dict[str, Any]]:
    """Open waits for signals by key: execution, step, names, since when and until when."""
    return [dict(row) for row in await connection.fetch(sql("list_signal_waits"), name, key, limit)]


async def declare_on_signal(
    connection: Connection, path: str, on_signal: Sequence[OnSignal], *, paused: bool = False
) -> None:
    """Bring the signals that start a playbook here in line with its latest version."""
    names = [declared.signal for declared in on_signal]
    conditions = [None if declared.when is None else declared.when.source for declared in on_signal]
    await connection.execute(sql("drop_on_signal"), path, names)
    if names:
        await connection.execute(sql("put_on_signal"), path, names, conditions, paused)
