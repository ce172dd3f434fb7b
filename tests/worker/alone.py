"""Runs one action as a job in a separate process, for tests that measure its memory or kill it.

`python -m tests.worker.alone` reads {action, dsn, limit} from standard input. It writes the job's result or error, and
the growth of its memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from noetl_broker.worker.environment import visible_environment
from noetl_broker.worker.executor import Success, execute
from noetl_broker.worker.idle_connections import IdleConnections
from noetl_broker.worker.tools.http_connections import HttpConnections
from noetl_broker.worker.tools.python_processes import Interpreters
from noetl_broker.worker.tools.task import WorkerResources
from tests.worker.conftest import leased

ROOT = Path(__file__).parents[2]
STATUS = Path("/proc/self/status")
MOST_KIB = 48 * 1024  # limit of the memory's growth: about twenty times the largest result
UNREACHABLE = "postgresql://127.0.0.1:1/none"

needs_proc = pytest.mark.skipif(not STATUS.exists(), reason="the peak of a process is read from /proc")


async def start_alone(
    action: dict[str, Any], *, dsn: str = UNREACHABLE, limit: float = 20.0
) -> asyncio.subprocess.Process:
    """Start the process and send it its job."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"action": action, "dsn": dsn, "limit": limit}).encode())
    process.stdin.write_eof()
    return process


async def run_alone(action: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Run a job in its own process; give {result or error, grown_kib}."""
    process = await start_alone(action, **more)
    stdout, _ = await process.communicate()
    answer: dict[str, Any] = json.loads(stdout)
    return answer


def resident_kib(name: str) -> int:
    """Give a size of this process: VmRSS is its memory, VmHWM its maximum."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


async def main() -> None:
    """Run the job."""
    request = json.loads(sys.stdin.read())
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
    print(json.dumps(answer | {"grown_kib": grown}))  # noqa: T201 - the test reads it


if __name__ == "__main__":
    asyncio.run(main())
