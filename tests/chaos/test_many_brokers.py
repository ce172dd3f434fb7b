"""Many brokers on the same executions: without the lock, the unique turn alone prevents doubled turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from noetl_broker.store.connect.sqlstates import is_conflict
from noetl_broker.store.turn import write
from tests.brokers import broken_invariants, complete_jobs, execute, register, start, value
from tests.chaos.gate import build_gate, drain_and_meet
from tests.chaos.killed_brokers import broker, drain
from tests.chaos.probes import LOCK, WIDE
from tests.chaos.sampling import LONG
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

BROKERS = (1, 2, 4, 8) if LONG else (4,)
LANES = 2
TURNS_EACH = 10  # a start, eight answers of the branches, one of the join
# In all runs together: enough to show a broken key.
EXECUTIONS = 1_050 if LONG else 12
MEETINGS = 100 if LONG else 2  # of two brokers that decide the same turn for certain


@pytest.fixture
def conflicts(monkeypatch: pytest.MonkeyPatch) -> dict[int, BaseException]:
    """Record each turn conflict once, however often the error is checked."""
    seen: dict[int, BaseException] = {}

    def record(error: BaseException) -> bool:
        conflict = is_conflict(error)
        if conflict:
            seen[id(error)] = error
        return conflict

    monkeypatch.setattr(write, "is_conflict", record)
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


@pytest.mark.parametrize("locked", [True, False], ids=["with the lock", "without the lock"])
async def test_brokers_on_the_same_executions_double_no_turn(
    database: Database, conflicts: dict[int, BaseException], tried: Callable[[str, object], None], *, locked: bool
) -> None:
    """With the lock no broker tries a turn that another has taken. Without it the unique key refuses doubled ones.

    Then each meeting is a conflict, and other runs have some by chance.
    """
    if not locked:
        source = await value(database, "select pg_get_functiondef('noetl.lock_executions'::regproc)")
        unlocked, locks = LOCK.subn("true", source)
        assert locks == 1
        await execute(database, unlocked)
    await register(database, WIDE)
    executions = EXECUTIONS // len(BROKERS)
    for brokers in BROKERS:
        await run_wide(database, brokers=brokers, executions=executions)
    before = len(conflicts)
    if not locked:
        await meet(database)
        assert len(conflicts) - before >= MEETINGS
    turns = await value(database, "select count(*) from noetl.turn")
    assert turns == (executions * len(BROKERS) + (0 if locked else MEETINGS)) * TURNS_EACH
    assert await broken_invariants(database) == {}
    assert not locked or conflicts == {}
    tried(f"lock {'on' if locked else 'off'}, up to 8 brokers, {turns} turns", f"0 doubled; {len(conflicts)} conflicts")
