"""Worker processes are killed, stopped past their leases and cut off; their clocks are an hour off."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from noetl_broker.playbook.diagnostics import PlaybookRules
from tests.brokers import broken_invariants, register, rows, running, start, value
from tests.chaos.daemons import START_SECONDS
from tests.chaos.sampling import LONG
from tests.chaos.under_load import Tried, until
from tests.postgres import Database

pytestmark = pytest.mark.chaos

EXECUTIONS = 400 if LONG else 15
INCIDENTS = 60 if LONG else 3  # one of each kind at least
LEASE_SECONDS = 1
# Shifts the clock of a worker by an hour.
SHIFTED = """
import datetime, time
class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds={seconds})
datetime.datetime = Shifted
right = time.time
time.time = lambda: right() + {seconds}
time.time_ns = lambda: int(time.time() * 1e9)
"""
WORK = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: sleep, seconds: 1.5, next: j}
- {step: b, type: sleep, seconds: 0.3, next: j}
- {step: j, type: sleep, seconds: 0, next: end}
- {step: end}
"""
KNOWN = PlaybookRules(extra_step_types=frozenset({"sleep"}))
LEASED = "select exists (select from noetl.queue where status = 'leased')"
TAKEN_OVER = "select not exists (select from noetl.queue where status = 'leased' and worker_id = $1)"
ENDED = "select count(*) = $1 from noetl.execution where status = 'COMPLETED'"
OF_ANOTHER = """
    select count(*)
    from noetl.event e
    join noetl.queue q on q.execution_id = e.execution_id and q.node_id = e.node_id
    where e.event_type = 'action_completed' and e.worker_id is distinct from q.worker_id"""
TERMINATE = """
    select count(pg_terminate_backend(pid))
    from pg_stat_activity
    where datname = current_database() and application_name like 'noetl-worker%'"""


class Crew:
    """Three workers: one with the right time, one an hour early, one an hour late. Dead ones are replaced."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.clocks = [self._clock(folder, seconds) for seconds in (0, -3600, 3600)]
        self.workers: list[asyncio.subprocess.Process] = []
        self.names: list[str] = ["", "", ""]
        self.started = 0

    @staticmethod
    def _clock(folder: Path, seconds: int) -> dict[str, str]:
        place = folder / f"clock{seconds}"
        place.mkdir()
        (place / "sitecustomize.py").write_text(SHIFTED.format(seconds=seconds))
        return {"PYTHONPATH": str(place)}

    async def start(self, place: int) -> asyncio.subprocess.Process:
        """Start the worker with this index."""
        self.started += 1
        self.names[place] = f"worker {self.started}"
        environment = os.environ | self.clocks[place] | {"NOETL_BROKER_DSN": self.database.dsn}
        arguments = (
            "worker",
            "--lease-seconds",
            str(LEASE_SECONDS),
            "--concurrency",
            "8",
            "--worker-id",
            self.names[place],
        )
        return await asyncio.create_subprocess_exec(sys.executable, "-m", "noetl_broker", *arguments, env=environment)

    async def kill(self, place: int) -> None:
        """Kill it with SIGKILL, and start another."""
        self.workers[place].kill()
        await self.workers[place].wait()
        self.workers[place] = await self.start(place)

    async def pause(self, place: int) -> None:
        """Stop it until another worker has its leases; then let it continue."""
        worker = self.workers[place]
        worker.send_signal(signal.SIGSTOP)
        try:
            await until(self.database, TAKEN_OVER, self.names[place], patience=START_SECONDS)
        finally:
            worker.send_signal(signal.SIGCONT)

    async def cut(self, _place: int) -> None:
        """Terminate the connections of all workers."""
        await value(self.database, TERMINATE)


@asynccontextmanager
async def crew_of(database: Database, folder: Path) -> AsyncIterator[Crew]:
    """Start a crew; kill all its workers after the test."""
    crew = Crew(database, folder)
    crew.workers = [await crew.start(index) for index in range(len(crew.clocks))]
    try:
        yield crew
    finally:
        for worker in crew.workers:
            worker.kill()
            await worker.wait()


async def test_workers_that_are_killed_stopped_or_cut_off_lose_and_repeat_nothing(
    database: Database, tmp_path: Path, tried: Tried
) -> None:
    """Leases depend on the database's clock alone."""
    await register(database, WORK)
    dice = random.Random(11)
    seen = dict.fromkeys(("kill", "pause", "cut"), 0)
    settings = {"reap_seconds": 0.1, "max_lost_leases": 1000, "playbook_rules": KNOWN}
    async with running(database, **settings), crew_of(database, tmp_path) as crew:
        for number in range(INCIDENTS):
            await start(database, count=EXECUTIONS // INCIDENTS)
            await until(database, LEASED, patience=START_SECONDS)
            name = list(seen)[number % len(seen)]
            seen[name] += 1
            await getattr(crew, name)(dice.randrange(len(crew.workers)))
        total = EXECUTIONS // INCIDENTS * INCIDENTS
        await until(database, ENDED, total, patience=300 if LONG else START_SECONDS)
    statement = (
        "select event_type, count(*) from noetl.event where event_type in ('step_failed', 'step_completed') group by 1"
    )
    assert await rows(database, statement) == [("step_completed", 3 * total)]
    assert await value(database, OF_ANOTHER) == 0  # a zombie's answer does not count
    assert await broken_invariants(database) == {}
    counts = ", ".join(f"{count} × {name}" for name, count in seen.items())
    tried(f"workers as processes, clocks an hour off: {counts}", f"{total} executions, 0 lost, 0 doubled")
