"""Many brokers on the same executions: without the lock, the unique turn alone prevents doubled turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from noetl_broker.store import turn_store
from noetl_broker.store.sqlstates import is_conflict
from tests.brokers import broken_invariants, complete_jobs, execute, register, start, value
from tests.chaos.gate import build_gate, drain_and_meet
from tests.chaos.killed_brokers import broker, drain
from tests.chaos.probes import LOCK, WIDE
from tests.chaos.sampling import LONG
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

BROKERS = (1, 2, 4, 8) if LONG else (2, 8)
LANES = 2
TURNS_EACH = 10  # a start, eight answers of the branches, one of the join
# In all runs together: enough to show a broken key.
EXECUTIONS = 1_050 if LONG else 30
MEETINGS = 100 if LONG else 5  # of two brokers that decide the same turn for certain


@pytest.fixture
def conflicts(monkeypatch: pytest.MonkeyPatch) -> dict[int, BaseException]:
    """Record each turn conflict once, however often the error is checked."""
    seen: dict[int, BaseException] = {}

    def record(error: BaseException) -> bool:
        conflict = is_conflict(error)
        if conflict:
            seen[id(error)] = error
        return conflict

    monkeypatch.setattr(turn_store, "is_conflict", record)
    return seen


async def run_wide(database: Database, *, brokers: int, executions: int) -> None:
    """Run wide executions; answer all jobs of a stage at once and let every broker decide all of them."""
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(session(database))
        running = [
            await stack.enter_async_context(broker(database, lanes=LANES, batch_size=4)) for _ in range(brokers)
        ]  # fmt: skip
        await start(database, count=executions)
        for _ in range(3):
            await asyncio.gather(*(one.drain() for one in running))
            await drain(running[0], connection)
            await complete_jobs(database, {"ok": True})


async def meet(database: Database) -> None:
    """Run one wide execution after the other; two brokers decide its answers before one of them may write."""
    await build_gate(database)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(session(database))
        both = [await stack.enter_async_context(broker(database, lanes=LANES, batch_size=4)) for _ in range(2)]
        for _ in range(MEETINGS):
            await start(database)
            await drain(both[0], connection)
            await complete_jobs(database, {"ok": True})
            await drain_and_meet(database, both)
            await drain(both[0], connection)
            await complete_jobs(database, {"ok": True})
            await drain(both[0], connection)


async def test_without_the_lock_the_unique_turn_prevents_doubled_turns(
    database: Database, conflicts: dict[int, BaseException], tried: Callable[[str, object], None]
) -> None:
    """The try-lock always succeeds. Each meeting is a conflict, other runs have some by chance."""
    unlocked, locks = LOCK.subn(
        "true", await value(database, "select pg_get_functiondef('noetl.lock_executions'::regproc)")
    )
    assert locks == 1
    await execute(database, unlocked)
    await register(database, WIDE)
    counts = []
    for brokers in BROKERS:
        before = len(conflicts)
        await run_wide(database, brokers=brokers, executions=EXECUTIONS // len(BROKERS))
        counts.append(f"{brokers}: {len(conflicts) - before}")
    before = len(conflicts)
    await meet(database)
    counts.append(f"meetings: {len(conflicts) - before}")
    turns = await value(database, "select count(*) from noetl.turn")
    assert await broken_invariants(database) == {}
    assert turns == (EXECUTIONS // len(BROKERS) * len(BROKERS) + MEETINGS) * TURNS_EACH
    tried(f"lock off, up to 8 brokers, {turns} turns", f"0 doubled; conflicts by brokers {', '.join(counts)}")
    assert len(conflicts) - before >= MEETINGS


async def test_with_the_lock_brokers_have_no_conflicts(
    database: Database, conflicts: dict[int, BaseException], tried: Callable[[str, object], None]
) -> None:
    """No broker tries a turn that another has taken."""
    await register(database, WIDE)
    for brokers in BROKERS:
        await run_wide(database, brokers=brokers, executions=EXECUTIONS // len(BROKERS))
    turns = await value(database, "select count(*) from noetl.turn")
    assert await broken_invariants(database) == {}
    tried(f"lock on, up to 8 brokers, {turns} turns", f"0 doubled; {len(conflicts)} conflicts")
    assert conflicts == {}
