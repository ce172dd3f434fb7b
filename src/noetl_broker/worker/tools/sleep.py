"""The sleep tool: it waits."""

from __future__ import annotations

import asyncio
from typing import Any

from noetl_broker.worker.tools.task import Task, seconds


async def run_sleep(task: Task) -> Any:
    """Wait for `seconds` (alias `duration`; a key of the step or an input), and return {slept}."""
    duration = task.first("seconds", "duration")
    if duration is None:
        duration = task.args.get("seconds", task.args.get("duration", 0))
    pause = seconds(duration, "seconds")
    await asyncio.sleep(pause)
    return {"slept": pause}
