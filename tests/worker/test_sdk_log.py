"""The log of a worker of functions: through `logging`, and silent below warning by default."""

from __future__ import annotations

import subprocess
import sys

from tests.postgres import SCHEMA, Database

PROGRAM = """
import asyncio, logging, sys
import structlog
from noetl_broker import Job, Worker

{configure}
stop = asyncio.Event()
worker = Worker(sys.argv[1], schema="{schema}", worker_id="me", poll_max_seconds=0.1)

@worker.task("own")
async def own(job: Job) -> int:
    stop.set()
    return 1

async def main() -> None:
    import asyncpg
    connection = await asyncpg.connect(sys.argv[1])
    await connection.execute('''
        insert into {schema}.queue (execution_id, node_id, node_name, node_type, action)
        values (1, '1:a', 'a', 'own', '{{"type": "own"}}')''')
    await asyncio.wait_for(worker.run(stop), 20)
    assert await connection.fetchval("select status from {schema}.queue") == "done"
    {after}

asyncio.run(main())
"""
WARNS = "from noetl_broker.worker import loop; loop.log.warning('lease_failed', error='a\\nb', pause_seconds=0.5)"


def run(database: Database, configure: str, after: str = "") -> tuple[str, str]:
    """Run a program that does one job; gives what it writes to stdout and stderr."""
    program = PROGRAM.format(configure=configure, after=after, schema=SCHEMA)
    command = [sys.executable, "-c", program, database.dsn]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, ended.stderr


def test_by_default_a_worker_logs_warnings_only(database: Database) -> None:
    """To stderr, one line each, whatever text is in it. A successful job is no event for an operator."""
    assert run(database, "", WARNS) == ("", "lease_failed error='a\\nb' pause_seconds=0.5\n")


def test_a_program_gets_more_through_logging(database: Database) -> None:
    """Under the name `noetl_broker`; debug lines only if it asks for them."""
    configure = """logging.basicConfig(format="%(levelname)s %(name)s %(module)s %(message)s")
logging.getLogger("noetl_broker").setLevel(logging.DEBUG)"""
    out, err = run(database, configure)
    lines = err.splitlines()
    assert (out, lines[0].split(" worker_id=")[0]) == ("", "INFO noetl_broker.worker.run run worker_started")
    assert any("loop job_ended queue_id=" in line and "outcome='done'" in line for line in lines)
    assert any("DEBUG noetl_broker.worker.loop loop job_started " in line for line in lines)


def test_a_program_that_configures_structlog_gets_events_there(database: Database) -> None:
    """With its processors and its level."""
    configure = """structlog.configure(
    processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
    wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    logger_factory=structlog.PrintLoggerFactory(sys.stderr))"""
    out, err = run(database, configure)
    assert out == ""
    assert '"event": "job_ended"' in err
    assert "job_started" not in err
