"""Runs actions as jobs in a separate process, for tests that measure its memory or kill it.

`python -m tests.worker.alone` has {actions, dsn, limit} as its argument. It writes each job's result or error, and the
growth of its memory. It imports nothing of pytest: that takes longer than most jobs.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from noetl_broker.store.worker.jobs import LeasedJob
from noetl_broker.worker.environment import visible_environment
from noetl_broker.worker.executor import Success, execute
from noetl_broker.worker.idle_connections import IdleConnections
from noetl_broker.worker.tools.http_connections import HttpConnections
from noetl_broker.worker.tools.python_processes import Interpreters
from noetl_broker.worker.tools.task import WorkerResources

ROOT = Path(__file__).parents[2]
STATUS = Path("/proc/self/status")
MOST_KIB = 48 * 1024  # limit of the memory's growth: about twenty times the largest result
UNREACHABLE = "postgresql://127.0.0.1:1/none"


async def start_alone(
    *actions: dict[str, Any], dsn: str = UNREACHABLE, limit: float = 20.0
) -> asyncio.subprocess.Process:
    """Start a new interpreter with its jobs."""
    jobs = json.dumps({"actions": actions, "dsn": dsn, "limit": limit})
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, jobs, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )


async def run_alone(*actions: dict[str, Any], dsn: str = UNREACHABLE, limit: float = 60.0) -> list[dict[str, Any]]:
    """Run jobs one after the other in a process of their own, which stays small; give {result} or {error} of each."""
    stdout, _ = await (await start_alone(*actions, dsn=dsn, limit=limit)).communicate()
    answers: list[dict[str, Any]]
    answers, grown_kib = json.loads(stdout)
    assert grown_kib < MOST_KIB
    return answers


def leased(action: dict[str, Any], context: dict[str, Any] | None = None) -> LeasedJob:
    """Make the leased job of an action."""
    return LeasedJob(
        queue_id=7,
        attempt=1,
        execution_id=42,
        node_id="42:fetch",
        node_name="fetch",
        node_type=str(action.get("type")),
        action=json.dumps({"name": "fetch"} | action),
        context=json.dumps(context or {}),
        priority=5,
    )


def resident_kib(name: str) -> int:
    """Give a size of this process: VmRSS is its memory, VmHWM its maximum."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


async def main() -> None:
    """Run the jobs."""
    request = json.loads(sys.argv[1])
    environment = dict(os.environ)
    interpreters = Interpreters(visible_environment(environment))
    shared = WorkerResources(
        dsn=request["dsn"],
        environment=environment,
        interpreters=interpreters,
        sql_connections=IdleConnections(most=1),
        http_connections=HttpConnections(IdleConnections(most=1)),
    )
    shared.http_connections.tls(verify=True)  # not counted
    before = resident_kib("VmRSS")
    outcomes = [
        await execute(leased(action), shared, time_limit_seconds=request["limit"]) for action in request["actions"]
    ]
    grown = resident_kib("VmHWM") - before
    await shared.close_connections()
    await interpreters.close()
    answers = [
        {"result": json.loads(one.result)} if isinstance(one, Success) else {"error": one.error} for one in outcomes
    ]
    print(json.dumps([answers, grown]))


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit()
