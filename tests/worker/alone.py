"""Runs one action as a job in a separate process, for tests that measure its memory or kill it.

`python -m tests.worker.alone` has {action, dsn, limit} as its argument. It writes the job's result or error, and the
growth of its memory. It imports nothing of pytest: that takes longer than most jobs.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from noetl_broker.store.jobs import LeasedJob
from noetl_broker.worker.environment import visible_environment
from noetl_broker.worker.executor import Success, execute
from noetl_broker.worker.idle_connections import IdleConnections
from noetl_broker.worker.tools.http_connections import HttpConnections
from noetl_broker.worker.tools.python_processes import Interpreters
from noetl_broker.worker.tools.task import WorkerResources
from tests.processes import STDERR, start_command

ROOT = Path(__file__).parents[2]
STATUS = Path("/proc/self/status")
MOST_KIB = 48 * 1024  # limit of the memory's growth: about twenty times the largest result
UNREACHABLE = "postgresql://127.0.0.1:1/none"


async def start_alone(
    action: dict[str, Any], *, dsn: str = UNREACHABLE, limit: float = 20.0
) -> asyncio.subprocess.Process:
    """Start a new interpreter with its job."""
    job = _request(action, dsn, limit)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, job, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )


async def run_alone(action: dict[str, Any], *, dsn: str = UNREACHABLE, limit: float = 20.0) -> dict[str, Any]:
    """Run a job in its own process; give {result or error, grown_kib}."""
    process = start_command([_request(action, dsn, limit)], module=__name__, cwd=ROOT, env=os.environ, stderr=STDERR)
    stdout, _ = await asyncio.to_thread(process.communicate)
    answer: dict[str, Any] = json.loads(stdout)
    return answer


def _request(action: dict[str, Any], dsn: str, limit: float) -> str:
    return json.dumps({"action": action, "dsn": dsn, "limit": limit})


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
    """Run the job."""
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
    outcome = await execute(leased(request["action"]), shared, time_limit_seconds=request["limit"])
    grown = resident_kib("VmHWM") - before
    shared.close_connections()
    await interpreters.close()
    answer = {"result": json.loads(outcome.result)} if isinstance(outcome, Success) else {"error": outcome.error}
    print(json.dumps(answer | {"grown_kib": grown}))


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit()
