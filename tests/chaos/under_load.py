"""Load for a daemon that meets faults: executions of one step, and the wait until all have ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.brokers import PATIENCE_SECONDS, complete_jobs, register, start, value
from tests.postgres import Database

POLL_SECONDS = 0.01

ONE_STEP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""
FEW_RUN = "select count(*) < 500 from noetl.execution where status = 'RUNNING'"
Tried = Callable[[str, object], None]


async def prepare(database: Database) -> None:
    """Register the playbook."""
    await register(database, ONE_STEP)


async def leave_core(seconds: float = POLL_SECONDS) -> None:
    """Pause between two polls of what another process or task changes: polls without end take a core from it."""
    await asyncio.sleep(seconds)


async def finish_all(database: Database, *, patience: float = PATIENCE_SECONDS) -> float:
    """Answer jobs until no execution runs; gives the seconds it took."""
    began = time.monotonic()
    async with asyncio.timeout(patience):
        while await value(database, "select count(*) from noetl.execution where status = 'RUNNING'"):
            if not await complete_jobs(database):
                await leave_core()
    return time.monotonic() - began


async def until(
    database: Database,
    condition: str,
    *arguments: object,
    patience: float = PATIENCE_SECONDS,
    pause: float = POLL_SECONDS,
) -> float:
    """Wait until a statement returns true, with a pause after each poll; gives the seconds it took."""
    began = time.monotonic()
    async with asyncio.timeout(patience):
        while not await value(database, condition, *arguments):
            await leave_core(pause)
    return time.monotonic() - began


@asynccontextmanager
async def load(database: Database) -> AsyncIterator[None]:
    """Start executions and answer jobs in the background of the block; a slow daemon gets no endless backlog."""
    stopping = asyncio.Event()

    async def go_on() -> None:
        while not stopping.is_set():
            if await value(database, FEW_RUN):
                await start(database, count=5)
            if not await complete_jobs(database):
                await leave_core()

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        stopping.set()
        await task
