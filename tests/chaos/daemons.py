"""The daemon as a process of its own, and what it uses of the machine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.postgres import Database


@asynccontextmanager
async def daemon(database: Database, **settings: str) -> AsyncIterator[int]:
    """Run the daemon as a process of its own, with these settings; gives its id."""
    environment = os.environ | {"NOETL_BROKER_DSN": database.dsn, "NOETL_BROKER_LOG_LEVEL": "error"}
    # Tests run beside each other, and a port can be had once.
    environment |= {"NOETL_BROKER_HEALTH_PORT": "0", "NOETL_BROKER_VERIFY_SECONDS": "0"}
    environment |= {f"NOETL_BROKER_{name.upper()}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "noetl_broker", "run", env=environment)
    try:
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


def resident(pid: int) -> float:
    """How many bytes of memory it holds now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) * 1024


def processor_seconds(pid: int) -> float:
    """How long it has kept a processor busy."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
