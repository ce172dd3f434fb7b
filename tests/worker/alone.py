"""Runs one action as a job in a process of its own: for tests that measure its memory, or kill it.

`python -m tests.worker.alone` reads {action, dsn, limit} from standard input, and writes how the job ended and how much
its memory grew at most.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from noetl_broker.worker.environment import visible_environment
from noetl_broker.worker.execute import Success, execute
from noetl_broker.worker.tools.interpreters import Interpreters
from noetl_broker.worker.tools.task import Lent
from tests.worker.conftest import leased

ROOT = Path(__file__).parents[2]
STATUS = Path("/proc/self/status")
MOST_KIB = 48 * 1024  # by which the memory may grow: some twenty times the largest result
UNREACHABLE = "postgresql://127.0.0.1:1/none"

needs_proc = pytest.mark.skipif(not STATUS.exists(), reason="the peak of a process is read from /proc")


async def start_alone(
    action: dict[str, Any], *, dsn: str = UNREACHABLE, limit: float = 20.0
) -> asyncio.subprocess.Process:
    """Start the process, and give it its job."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"action": action, "dsn": dsn, "limit": limit}).encode())
    process.stdin.write_eof()
    return process


async def run_alone(action: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Give {result or error, grown_kib} of a job in a process of its own."""
    process = await start_alone(action, **more)
    told, _ = await process.communicate()
    answer: dict[str, Any] = json.loads(told)
    return answer


def resident_kib(name: str) -> int:
    """Read a size of this process: VmRSS is the memory that it has, VmHWM the most that it ever had."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


async def main() -> None:
    """Run the job."""
    asked = json.loads(sys.stdin.read())
    environment = dict(os.environ)
    interpreters = Interpreters(visible_environment(environment), spare=0)
    tls = httpx.create_ssl_context()
    lent = Lent(dsn=asked["dsn"], environment=environment, interpreters=interpreters, tls=tls)
    before = resident_kib("VmRSS")
    outcome = await execute(leased(asked["action"]), lent, time_limit_seconds=asked["limit"])
    grown = resident_kib("VmHWM") - before
    await interpreters.close()
    told = {"result": json.loads(outcome.result)} if isinstance(outcome, Success) else {"error": outcome.error}
    print(json.dumps(told | {"grown_kib": grown}))  # noqa: T201 - the test reads it


if __name__ == "__main__":
    asyncio.run(main())
