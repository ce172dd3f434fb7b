"""Follows an execution: yields its events until it ends; gives events as lines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from noetl_broker.broker.state.state import is_live
from noetl_broker.cli import output
from noetl_broker.explain.event_text import event_detail
from noetl_broker.explain.status_text import standstill
from noetl_broker.explain.wait_text import wait_lines
from noetl_broker.node_ids import name_of_row
from noetl_broker.store.admin import executions
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.lasting_session import LastingSession
from noetl_broker.store.connect.schema_name import with_schema

# A poll comes late by at most a tenth of the time that nothing has happened.
POLL_SECONDS = (0.05, 0.5)
LATE_SHARE = 0.1
# After a slow query, rest several times as long: the database has other work.
REST_FACTOR = 5.0
SILENCE_SECONDS = 5.0
WITH_WAITS = frozenset({"wait", "approval"})  # types of steps


async def follow(
    source: LastingSession, execution_id: int, of: executions.EventsOf | None = None
) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the new events of each poll (perhaps none), in the order of turns as far as it is known.

    Stops when the execution has ended. Events that come after the end change nothing and are not waited for.
    """
    seen: set[int] = set()
    moved = time.monotonic()
    shortest, longest = POLL_SECONDS

    def pause() -> float:
        return min(max(LATE_SHARE * (time.monotonic() - moved), shortest), longest)

    async for _ in polls(source, partial(executions.find_execution, execution_id=execution_id), pause):
        entries = await source.read(partial(executions.list_events, execution_id=execution_id, of=of, read_only=True))
        new = [event for event in entries if event["event_id"] not in seen]
        seen.update(event["event_id"] for event in new)
        yield new
        moved = time.monotonic() if new else moved


async def polls(
    source: LastingSession, read: Callable[[Connection], Awaitable[dict[str, Any]]], pause: Callable[[], float]
) -> AsyncIterator[dict[str, Any]]:
    """Yield what is read of an execution, at each poll until it has ended. A slow database is queried less often.

    The status is read before the poll: an execution that has ended has written all of its events and logs.
    """
    while True:
        began = time.monotonic()
        found = await source.read(read)
        yield found
        if not is_live(found["status"]):
            return
        await asyncio.sleep(max(pause(), REST_FACTOR * (time.monotonic() - began)))


async def follow_to_end(
    source: LastingSession, execution_id: int, *, show_line: Callable[[str], None]
) -> dict[str, Any]:
    """Show each event as a line, what begins to wait, and one hint if nothing moves; gives the row of the end."""
    read_details = partial(executions.load_execution_details, execution_id=execution_id)
    moved_at, hinted = time.monotonic(), False
    async for events in follow(source, execution_id):
        for event in events:
            show_line(event_line(event))
        if any(event["event_type"] == "step_started" and event["node_type"] in WITH_WAITS for event in events):
            details = await source.read(read_details)
            for line in wait_lines(details["waits"], execution_id):
                show_line(line)
        was_queued = any(event["event_type"] == "execution_queued" for event in events)
        if events and not was_queued:
            moved_at = time.monotonic()
        elif not hinted and (was_queued or time.monotonic() - moved_at > SILENCE_SECONDS):
            hinted = True
            details = await source.read(read_details)
            for line in standstill(details):
                show_line(with_schema(line, source.schema))
    return await source.read(partial(executions.find_execution, execution_id=execution_id))


def event_line(event: dict[str, Any]) -> str:
    """Give an event as a line: time, type, step with visit, detail."""
    return "  ".join(part for part in event_cells(event) if part).rstrip()


def event_cells(event: dict[str, Any]) -> tuple[str, str, str, str]:
    """Give an event as time, type, step (`fetch#2` for the second visit) and detail."""
    return (
        output.moment(event["created_at"]),
        output.cell(event["event_type"]).ljust(18),
        output.cell(name_of_row(event)),
        output.cell(event_detail(event)),
    )
