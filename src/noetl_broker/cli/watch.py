"""What `status --watch` shows: on a terminal one picture that changes, in a pipe a line for each change."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from rich.console import Group
from rich.live import Live

from noetl_broker.cli import output
from noetl_broker.cli.follow import LOOK_SECONDS, REST_FACTOR, step_name
from noetl_broker.cli.standing import ending, standing, took
from noetl_broker.store import executions
from noetl_broker.store.pool import Connection

Found = dict[str, Any]
# How each thing stands, by what it is, its name and (of a job, of which a step may have many) its number.
Standings = dict[tuple[str, str, int], str]


async def watch(connection: Connection, execution_id: int, *, as_json: bool) -> Found:
    """Show where an execution stands until it has ended, and give its last standing."""
    looks = _looks(connection, execution_id)
    if as_json:
        return await _as_documents(looks)
    return await (_as_picture(looks) if sys.stdout.isatty() else _as_lines(looks))


async def _looks(connection: Connection, execution_id: int) -> AsyncIterator[Found]:
    """Yield what is found again and again, the end last; a database that is slow is asked less often."""
    while True:
        began = time.monotonic()
        found = await executions.look_into(connection, execution_id)
        yield found
        if found["status"] != executions.OPEN:
            return
        await asyncio.sleep(max(LOOK_SECONDS[1] / 2, REST_FACTOR * (time.monotonic() - began)))


async def _as_picture(looks: AsyncIterator[Found]) -> Found:
    found: Found = {}
    with Live(console=output.console(), auto_refresh=False, vertical_overflow="ellipsis") as live:
        async for found in looks:
            live.update(Group(*(part.drawn() for part in standing(found))), refresh=True)
        live.vertical_overflow = "visible"  # the last one stays, all of it
    return found


async def _as_lines(looks: AsyncIterator[Found]) -> Found:
    found: Found = {}
    before: Standings = {}
    async for found in looks:
        now = standings(found)
        for line in changes(before, now):
            output.say(f"{output.moment(found['read_at'])}  {line}")
        before = now
    output.Lines(tuple(ending(found))).show()
    return found


async def _as_documents(looks: AsyncIterator[Found]) -> Found:
    found: Found = {}
    before: Standings = {}
    async for found in looks:
        now = standings(found)
        if now != before:
            output.show_json_line(found)
        before = now
    return found


def standings(found: Found) -> Standings:
    """Say how each part of an execution stands: itself, each step that has begun, each open job."""
    time_taken = took(found["started_at"], found["ended_at"])
    told = {("execution", str(found["execution_id"]), 0): _and(found["status"], time_taken and f"after {time_taken}")}
    for step in found["steps"]:
        if step["visits"]:
            visit = f"visit {step['visits']}" if step["visits"] > 1 else None
            ended = step["status"] != executions.OPEN and took(step["started_at"], step["ended_at"])
            told["step", str(step["step"]), 0] = _and(step["status"], visit, ended and f"after {ended}")
    for job in found["jobs"]:
        lease = f"lease {job['attempts']}" if job["attempts"] > 1 else None
        worker = f"by {job['worker_id']}" if job["status"] == "leased" else None
        told["job of", step_name(job), job["queue_id"]] = _and(job["status"], worker, lease)
    return told


def changes(before: Standings, now: Standings) -> Iterator[str]:
    """Tell what stands otherwise than before, a line each; a job that is gone is told by its step."""
    for part, words in now.items():
        if before.get(part) != words:
            what, name, _ = part
            yield output.one_line(f"{what} {name}  {words}")


def _and(*words: object) -> str:
    return "  ".join(str(word) for word in words if word)
