"""Workers die, answer too late or answer twice: a job ends once, by the worker that has its lease."""

from __future__ import annotations

import pytest

from tests.brokers import broken_invariants, running, start, value
from tests.chaos.sampling import LONG
from tests.chaos.under_load import Tried, finish_all, prepare, until
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

JOBS = 1000 if LONG else 60
LEASE = "select queue_id, attempts from noetl.lease_jobs($1, $2, $3)"
LONG_LEASE, SHORT_LEASE = 600, 1  # seconds
COMPLETE = "select noetl.complete_job($1, $2, $3, $4)"
EXPIRED = "select not exists (select from noetl.queue where status = 'leased')"


async def test_late_and_repeated_answers_change_nothing(database: Database, tried: Tried) -> None:
    """A third of the jobs is answered twice. The other workers lose their leases and answer too late."""
    await prepare(database)
    async with session(database) as connection, running(database, reap_seconds=0.1, max_lost_leases=100):
        await start(database, count=JOBS)
        await until(database, "select count(*) = $1 from noetl.queue", JOBS)
        answered = await connection.fetch(LEASE, "first", JOBS // 3, LONG_LEASE)
        zombies = await connection.fetch(LEASE, "first", JOBS, SHORT_LEASE)
        assert len(answered) + len(zombies) == JOBS
        answers = [
            await connection.fetchval(COMPLETE, queue_id, "first", attempt, {"by": "first"})
            for queue_id, attempt in answered * 2
        ]
        assert all(answers)
        await until(database, EXPIRED)
        taken_over = await connection.fetch(LEASE, "second", JOBS, SHORT_LEASE)
        assert {job["queue_id"] for job in taken_over} == {job["queue_id"] for job in zombies}
        late = [await connection.fetchval(COMPLETE, *_by("first", job), {"by": "zombie"}) for job in zombies]
        assert not any(late)
        await finish_all(database)
    assert await value(database, "select count(*) from noetl.event where event_type = 'step_completed'") == JOBS
    assert await value(database, "select count(*) from noetl.event where result ->> 'by' = 'zombie'") == 0
    assert await broken_invariants(database) == {}
    tried(f"{len(zombies)} zombies, {len(answered)} answers repeated", "0 doubled, 0 lost; no late answer counted")


def _by(worker: str, job: tuple[int, int]) -> tuple[int, str, int]:
    queue_id, attempt = job
    return queue_id, worker, attempt
