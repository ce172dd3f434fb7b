"""Random starts, pauses, cancels and ends of executions with slots: limits hold after each step, and all ends well.

Seeds from 10,000,000 on belong to slots.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from tests.brokers import drain, execute, register, rows, running, value
from tests.chaos.sampling import LONG
from tests.consistency import inconsistencies
from tests.postgres import Database

pytestmark = pytest.mark.chaos  # for the long form
SEEDS = range(10_000_000, 10_000_000 + (40 if LONG else 2))
STEPS = 60
STEPS_OF_TWO = 180 if LONG else 90  # beside two brokers
DRAINED = 0.7  # of the steps
JOB = """
workload: {key: 0}
workflow:
  - {step: start, next: a}
  - {step: a, type: python, code: "def main(): ...", next: end}
  - {step: end}
"""
PARENT = """
workload: {key: 0, path: queue}
workflow:
  - {step: start, next: call}
  - step: call
    type: playbook
    path: "{{ workload.path }}"
    args: {key: "{{ workload.key }}"}
    on_error: continue
    next: end
  - {step: end}
"""
KEY = 'key: "{{ workload.key }}"'
PLAYBOOKS = {
    "queue": (JOB, f"concurrency: {{{KEY}, limit: 1}}"),
    "skip": (JOB, f"concurrency: {{{KEY}, limit: 2, on_limit: skip}}"),
    "cancel": (JOB, f"concurrency: {{{KEY}, limit: 1, on_limit: cancel_running}}"),
    "parent": (PARENT, f"concurrency: {{{KEY}, limit: 2}}"),
}
COMPLETE = "select noetl.complete_job(queue_id, 'w', attempts) from noetl.lease_jobs('w', 1000)"
# A row for each fault.
FAULTS = {
    "more hold a slot than may": """
        select c.path, c.key, count(*), p.max_held
        from noetl.slot_claim c
        join noetl.place p on p.path = c.path and p.key = c.key
        where c.held_at is not null
        group by c.path, c.key, p.max_held, p.held
        having count(*) > p.max_held or count(*) <> p.held""",
    "one runs without a slot": """
        select x.execution_id, x.path
        from noetl.execution x
        where x.status = 'RUNNING' and x.parent_execution_id is null and not exists (
          select from noetl.slot_claim c where c.execution_id = x.execution_id and c.held_at is not null
        )""",
    "one waits for a slot that is free": """
        select c.execution_id, c.path
        from noetl.slot_claim c
        join noetl.place p on p.path = c.path and p.key = c.key
        where c.held_at is null and c.cancelled_at is null and p.held < p.max_held and not p.is_passed
          and noetl.could_run(c)""",
    "one is out of order": """
        select w.execution_id, h.execution_id
        from noetl.slot_claim w
        join noetl.slot_claim h on h.path = w.path and h.key = w.key and h.number > w.number
        where h.held_at > w.created_at and w.path = 'queue' and w.held_at is null and w.cancelled_at is null
          and not w.is_pair and noetl.could_run(w) and not exists (select from noetl.path_pause)
          and not exists (
            select from noetl.event e where e.execution_id = w.execution_id and e.event_type like '%pause%'
          )""",
}


class Chance:
    """Does one random thing at a time."""

    def __init__(self, database: Database, seed: int) -> None:
        """The same seed does the same things in the same state."""
        self.database = database
        self.random = random.Random(seed)
        self.moments = 0

    async def step(self) -> str:
        """Do one thing; returns what."""
        choices: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (6, self.start), (2, self.fire), (4, self.complete), (2, self.pause), (3, self.resume), (1, self.cancel),
            (1, self.pause_path), (2, self.resume_path),
        ]  # fmt: skip
        [chosen] = self.random.choices([act for _, act in choices], [weight for weight, _ in choices])
        await chosen()
        return chosen.__name__

    async def start(self) -> None:
        """Start up to five executions."""
        path = self.random.choice([*PLAYBOOKS])
        for _ in range(self.random.randint(1, 5)):
            payload = {"key": self.random.randint(0, 1), "path": self.random.choice([*PLAYBOOKS][:3])}
            await execute(self.database, "select noetl.start_execution($1, $2)", path, payload)

    async def fire(self) -> None:
        """Let a schedule start one."""
        self.moments += 1
        statement = "select noetl.start_scheduled($1, '2026-01-01'::timestamptz + $2 * interval '1 day', 'x', true)"
        await execute(self.database, statement, self.random.choice(["s_skip", "s_queue", "s_cancel"]), self.moments)

    async def complete(self) -> None:
        """Complete some jobs."""
        limit = self.random.randint(1, 6)
        statement = """
            with leased as (select queue_id, attempts from noetl.lease_jobs('w', $1))
            select count(noetl.complete_job(queue_id, 'w', attempts, null)) from leased"""
        await value(self.database, statement, limit)

    async def pause(self) -> None:
        """Pause one."""
        await self._of_one("noetl.pause_execution", "RUNNING", "QUEUED")

    async def resume(self) -> None:
        """Resume one."""
        await self._of_one("noetl.resume_execution", "PAUSED")

    async def cancel(self) -> None:
        """Cancel one."""
        await self._of_one("noetl.cancel_execution", "RUNNING", "QUEUED", "PAUSED")

    async def pause_path(self) -> None:
        """Pause a playbook."""
        await execute(self.database, "select noetl.pause_path($1)", self.random.choice([*PLAYBOOKS]))

    async def resume_path(self) -> None:
        """Resume a playbook, and let the reaper look."""
        await execute(self.database, "select noetl.resume_path($1)", self.random.choice([*PLAYBOOKS]))
        await execute(self.database, "select noetl.reap(100, 5), noetl.sweep_slots(100)")

    async def _of_one(self, function: str, *statuses: str) -> None:
        listed = "select execution_id from noetl.execution where status = any($1) order by execution_id"
        found = await rows(self.database, listed, [*statuses])
        if found:
            await execute(self.database, f"select {function}($1)", self.random.choice(found)[0])


async def faults(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """Return the faults by name; empty if there are none."""
    found = {name: await rows(database, statement) for name, statement in FAULTS.items()}
    return {name: faulty for name, faulty in found.items() if faulty}


async def finish(database: Database) -> None:
    """Resume everything, and complete all jobs."""
    await execute(database, "select noetl.resume_path(path) from noetl.path_pause")
    for _ in range(200):
        statement = "select noetl.resume_execution(execution_id) from noetl.execution where status = 'PAUSED'"
        await execute(database, statement)
        await execute(database, "select noetl.reap(1000, 5), noetl.sweep_slots(1000)")
        await drain(database)
        await execute(database, COMPLETE)
        await drain(database)
        if not await value(database, "select count(*) from noetl.execution where noetl.is_live(status)"):
            return


async def prepare(database: Database) -> None:
    """Register the playbooks, and put a schedule for each overlap."""
    for path, (body, metadata) in PLAYBOOKS.items():
        await register(database, body, path=path, metadata=metadata)
    for word in ("skip", "queue", "cancel"):
        statement = "select noetl.put_schedule('s_' || $1, 'queue', '@daily', overlap => $1)"
        await execute(database, statement, word)


async def assert_nothing_is_left(database: Database) -> None:
    """Assert that all has ended and that the tables agree."""
    assert await rows(database, "select execution_id from noetl.execution where noetl.is_live(status)") == []
    assert await rows(database, "select * from noetl.slot_claim") == []
    assert await rows(database, "select * from noetl.place") == []
    assert await inconsistencies(database) == {}


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_limits_hold_and_all_executions_end(database: Database, seed: int) -> None:
    """After each step nobody waits for a free slot."""
    await prepare(database)
    chance, done = Chance(database, seed), []
    for _ in range(STEPS):
        done.append(await chance.step())
        if chance.random.random() < DRAINED:
            await drain(database)
            assert (await faults(database), done[-5:]) == ({}, done[-5:])
    await finish(database)
    await assert_nothing_is_left(database)


@pytest.mark.parametrize("seed", SEEDS)
async def test_two_brokers_at_once_leave_nobody_waiting(database: Database, seed: int) -> None:
    """They take and free slots at the same time as pauses, cancels and starts come."""
    await prepare(database)
    chance = Chance(database, seed)
    async with running(database), running(database):
        for _ in range(STEPS_OF_TWO):
            await chance.step()
            over = FAULTS["more hold a slot than may"]
            assert await rows(database, over) == []
        await finish(database)
    await assert_nothing_is_left(database)
