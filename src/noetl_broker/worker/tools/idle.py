"""The tools that do nothing: noop, and sleep for a while."""

from __future__ import annotations

import asyncio
from typing import Any

from noetl_broker.worker.tools.task import Task, seconds


async def run_noop(task: Task) -> Any:
    """Give the inputs back."""
    return dict(task.args)


async def run_sleep(task: Task) -> Any:
    """Wait for `seconds` (alias `duration`; as a key or an input) and give {slept}."""
    asked = task.first("seconds", "duration")
    if asked is None:
        asked = task.args.get("seconds", task.args.get("duration", 0))
    pause = seconds(asked, "seconds")
    await asyncio.sleep(pause)
    return {"slept": pause}
