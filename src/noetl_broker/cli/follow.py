"""Follows an execution: its events as the broker reads and writes them, until it has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from noetl_broker.cli import output
from noetl_broker.store import executions
from noetl_broker.store.pool import Connection

LOOK_SECONDS = (0.05, 0.5)
# A look at a long log takes its time; we are then on the database's back for a small part of it only.
REST_FACTOR = 5.0
PATIENCE_SECONDS = 5.0


async def follow(connection: Connection, execution_id: int) -> AsyncIterator[dict[str, Any]]:
    """Yield each event once, in turn order as far as it is known, and end when the execution has."""
    seen: set[int] = set()
    pause = LOOK_SECONDS[0]
    while True:
        began = time.monotonic()
        execution = await executions.find_execution(connection, execution_id)
        ended = execution["status"] != executions.OPEN and not execution["unread"]
        # Asked after the status: what an ended execution wrote is there.
        new = [
            event
            for event in await executions.list_events(connection, execution_id, read_only=True)
            if event["event_id"] not in seen
        ]
        for event in new:
            seen.add(event["event_id"])
            yield event
        if ended:
            return
        pause = LOOK_SECONDS[0] if new else min(pause * 1.5, LOOK_SECONDS[1])
        await asyncio.sleep(max(pause, REST_FACTOR * (time.monotonic() - began)))


async def follow_to_end(connection: Connection, execution_id: int, *, tell: Callable[[str], None]) -> dict[str, Any]:
    """Tell each event as one line, and what is missing when nothing moves; give the execution's row at its end."""
    complaint = asyncio.create_task(_complain(tell))
    try:
        async for event in follow(connection, execution_id):
            complaint.cancel()
            tell(event_line(event))
    finally:
        complaint.cancel()
    return await executions.find_execution(connection, execution_id)


async def _complain(tell: Callable[[str], None]) -> None:
    await asyncio.sleep(PATIENCE_SECONDS)
    tell(f"nothing has happened for {PATIENCE_SECONDS:.0f} s: is a broker running? (noetl-broker run)")


def event_line(event: dict[str, Any]) -> str:
    """Give one event as a line: its time, its type, its step with the visit, and what went wrong."""
    return "  ".join(part for part in event_cells(event) if part).rstrip()


def event_cells(event: dict[str, Any]) -> tuple[str, str, str, str]:
    """Give one event as time, type, step (`fetch #2` for the second visit) and detail."""
    return (
        output.moment(event["created_at"]),
        output.cell(event["event_type"]).ljust(18),
        output.cell(step_name(event)),
        output.cell(_detail(event)),
    )


def step_name(row: dict[str, Any]) -> str:
    """Give the step of an event or a job, with its visit from the second on."""
    name = str(row.get("node_name") or row.get("step") or "")
    _, mark, visit = str(row.get("node_id") or "").rpartition("#")
    return f"{name} #{visit}" if mark and visit.isdigit() else name


def _detail(event: dict[str, Any]) -> str | None:
    error, meta = event["error"], event["meta"] if isinstance(event["meta"], dict) else {}
    parts = []
    if isinstance(error, dict) and error.get("message"):
        parts.append(str(error["message"]))
    elif error is not None:
        parts.append(output.compact_json(error))
    if isinstance(meta.get("delay_seconds"), (int, float)):
        parts.append(f"again in {output.span(meta['delay_seconds'])}")
    if isinstance(meta.get("attempt"), int) and meta["attempt"] > 1:
        parts.append(f"attempt {meta['attempt']}")
    return ", ".join(parts) or None
