"""The noop tool: it does nothing."""

from __future__ import annotations

from typing import Any

from noetl_broker.worker.tools.task import Task


async def run_noop(task: Task) -> Any:
    """Return the inputs."""
    return dict(task.args)
