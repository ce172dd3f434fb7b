"""Processes that get a share of a core each, as if each had a slow machine of its own.

Every few milliseconds it is looked at what each has used: who has had its share is stopped until it may go on, as
cpulimit does it, which needs no rights and no control groups. What one uses too much before it is looked at is taken
from what comes next, so the share is right over time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 0.004
SAVED_SECONDS: Final = 0.01  # what who was idle may use at once


@asynccontextmanager
async def held_to(share: float, process_ids: Sequence[int]) -> AsyncIterator[None]:
    """None of these processes uses more than this share of a core; they go on unhindered afterwards."""
    holding = asyncio.create_task(_hold(share, process_ids))
    try:
        yield
    finally:
        holding.cancel()
        with suppress(asyncio.CancelledError):
            await holding
        for process_id in process_ids:
            os.kill(process_id, signal.SIGCONT)


async def _hold(share: float, process_ids: Sequence[int]) -> None:
    allowed = dict.fromkeys(process_ids, 0.0)
    used = {process_id: _seconds(process_id) for process_id in process_ids}
    stopped: set[int] = set()
    looked = time.perf_counter()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = time.perf_counter()
        for process_id in process_ids:
            seconds = _seconds(process_id)
            earned = allowed[process_id] + share * (now - looked)
            allowed[process_id] = min(earned, SAVED_SECONDS) - (seconds - used[process_id])
            used[process_id] = seconds
            if (allowed[process_id] < 0) != (process_id in stopped):
                os.kill(process_id, signal.SIGCONT if process_id in stopped else signal.SIGSTOP)
                stopped ^= {process_id}
        looked = now


def _seconds(process_id: int) -> float:
    """What the threads of a process have used of the processor, by the scheduler's own count of nanoseconds."""
    tasks = Path(f"/proc/{process_id}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
