"""Follows an execution: its events as the broker reads and writes them, until it has ended."""

from __future__ import annotations

import asyncio
import re
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
_VISIT = re.compile(r"#(?P<visit>\d+)(?:\.(?P<place>\d+))?$")


async def follow(connection: Connection, execution_id: int) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the events that came since the last look (perhaps none), in turn order as far as it is known.

    Ends when the execution has ended. What comes after the end changes nothing and is not waited for.
    """
    seen: set[int] = set()
    pause = LOOK_SECONDS[0]
    while True:
        began = time.monotonic()
        # Asked before the events: what an execution that has ended wrote is there.
        ended = (await executions.find_execution(connection, execution_id))["status"] != executions.OPEN
        entries = await executions.list_events(connection, execution_id, read_only=True)
        new = [event for event in entries if event["event_id"] not in seen]
        seen.update(event["event_id"] for event in new)
        yield new
        if ended:
            return
        pause = LOOK_SECONDS[0] if new else min(pause * 1.5, LOOK_SECONDS[1])
        await asyncio.sleep(max(pause, REST_FACTOR * (time.monotonic() - began)))


async def follow_to_end(connection: Connection, execution_id: int, *, tell: Callable[[str], None]) -> dict[str, Any]:
    """Tell each event as one line, and once what is missing where nothing moves; give the row at its end."""
    moved_at, complained = time.monotonic(), False
    async for events in follow(connection, execution_id):
        for event in events:
            tell(event_line(event))
        if events:
            moved_at = time.monotonic()
        elif not complained and time.monotonic() - moved_at > PATIENCE_SECONDS:
            complained = True
            for line in _missing(await executions.look_into(connection, execution_id)):
                tell(line)
    return await executions.find_execution(connection, execution_id)


def _missing(found: dict[str, Any]) -> list[str]:
    """Say who does not seem to be there."""
    if found["unread"]:
        return ["its events wait to be read: is a broker running? (noetl-broker run)"]
    free = [job for job in found["jobs"] if job["status"] == "queued"]
    return [
        f"the job of {step_name(job)} waits: is a worker for {job['type']} running? (noetl-broker worker)"
        for job in free[:1]
    ]


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
    """Give the step of an event or a job, with its visit from the second on, and its place where it is an item's."""
    name = str(row.get("node_name") or row.get("step") or "")
    found = _VISIT.search(str(row.get("node_id") or ""))
    if found is None:
        return name
    visit = "" if found["visit"] == "1" else f" #{found['visit']}"
    return name + visit + ("" if found["place"] is None else f"[{found['place']}]")


def _detail(event: dict[str, Any]) -> str | None:
    error, meta = event["error"], event["meta"] if isinstance(event["meta"], dict) else {}
    parts = []
    context = event["context"] if isinstance(event["context"], dict) else {}
    if event["event_type"].startswith("iteration_") and isinstance(context.get("index"), int):
        parts.append(f"item {context['index']}")
    if isinstance(error, dict) and error.get("message"):
        parts.append(str(error["message"]))
    elif error is not None:
        parts.append(output.compact_json(error))
    if isinstance(meta.get("delay_seconds"), (int, float)):
        parts.append(f"again in {output.span(meta['delay_seconds'])}")
    if isinstance(meta.get("attempt"), int) and meta["attempt"] > 1:
        parts.append(f"attempt {meta['attempt']}")
    return ", ".join(parts) or None
