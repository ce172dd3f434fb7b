"""The daemon as a separate process, and its use of memory and CPU."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.brokers import value
from tests.chaos.under_load import until
from tests.postgres import Database
from tests.processes import STDERR, start_command

START_SECONDS = 120.0  # for a new process and its first answers: on a busy machine, its imports alone take ten
LISTENS_SINCE = """
select exists (
  select
  from pg_stat_activity
  where application_name like 'noetl-broker bell%' and datname = current_database() and backend_start > $1::timestamptz
)"""


@asynccontextmanager
async def daemon(database: Database, **settings: str) -> AsyncIterator[int]:
    """Run the daemon as a process with these settings; gives its process id."""
    environment = os.environ | {"NOETL_BROKER_DSN": database.dsn, "NOETL_BROKER_LOG_LEVEL": "error"}
    # Tests run in parallel, so each daemon needs its own port.
    environment |= {"NOETL_BROKER_HEALTH_PORT": "0", "NOETL_BROKER_VERIFY_SECONDS": "0"}
    environment |= {f"NOETL_BROKER_{name.upper()}": value for name, value in settings.items()}
    process = start_command(["run"], cwd=Path.cwd(), env=environment, stdout=subprocess.DEVNULL, stderr=STDERR)
    try:
        yield process.pid
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


@asynccontextmanager
async def ready_daemon(database: Database, **settings: str) -> AsyncIterator[int]:
    """Run a daemon as `daemon` does; enters when it listens, so that who kills it kills one at work."""
    now = await value(database, "select clock_timestamp()")
    async with daemon(database, **settings) as pid:
        await until(database, LISTENS_SINCE, now, patience=START_SECONDS)
        yield pid


def resident(pid: int) -> float:
    """Give the resident memory of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) * 1024


def processor_seconds(pid: int) -> float:
    """Give the CPU time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
