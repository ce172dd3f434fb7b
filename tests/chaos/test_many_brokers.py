"""Any number of brokers on the same executions: with the lock switched off, the unique turn alone keeps them apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from noetl_broker.store import unit
from noetl_broker.store.faults import is_conflict
from tests.brokers import broken_invariants, complete_jobs, execute, register, start, value
from tests.chaos.extent import LONG
from tests.chaos.killing import broker, drain
from tests.chaos.probes import LOCK, WIDE
from tests.postgres import Database
from tests.sessions import session

pytestmark = pytest.mark.chaos

BROKERS = (1, 2, 4, 8)
LANES = 2
TURNS_EACH = 10  # a start, eight answers of the branches, one of the join
# All together: enough that a key which did not hold would have been seen.
EXECUTIONS = 1_050 if LONG else 60
LEAST_CONFLICTS = 100 if LONG else 10


@pytest.fixture
def conflicts(monkeypatch: pytest.MonkeyPatch) -> dict[int, BaseException]:
    """Give where each refusal of a turn that another broker took is told, once however often it is asked about."""
    seen: dict[int, BaseException] = {}

    def told(error: BaseException) -> bool:
        conflict = is_conflict(error)
        if conflict:
            seen[id(error)] = error
        return conflict

    monkeypatch.setattr(unit, "is_conflict", told)
    return seen


async def run_wide(database: Database, *, brokers: int, executions: int) -> None:
    """Run wide executions through, all answers of a stage at once and every broker on all of them."""
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


async def test_without_the_lock_n_brokers_are_kept_apart_by_the_turn_key(
    database: Database, conflicts: dict[int, BaseException], tried: Callable[[str, object], None]
) -> None:
    """The try-lock answers true to everybody; enough turns and conflicts must be seen for it to be a proof."""
    unlocked, locks = LOCK.subn("true", await value(database, "select pg_get_functiondef('noetl.take_mail'::regproc)"))
    assert locks == 1
    await execute(database, unlocked)
    await register(database, WIDE)
    told = []
    for brokers in BROKERS:
        before = len(conflicts)
        await run_wide(database, brokers=brokers, executions=EXECUTIONS // len(BROKERS))
        told.append(f"{brokers}: {len(conflicts) - before}")
    turns = await value(database, "select count(*) from noetl.turn")
    assert await broken_invariants(database) == {}
    assert turns == EXECUTIONS // len(BROKERS) * len(BROKERS) * TURNS_EACH
    tried(f"lock off, 1 to 8 brokers, {turns} turns", f"0 doubled; conflicts by brokers {', '.join(told)}")
    assert len(conflicts) >= LEAST_CONFLICTS


async def test_with_the_lock_n_brokers_never_meet(
    database: Database, conflicts: dict[int, BaseException], tried: Callable[[str, object], None]
) -> None:
    """The lock is the first wall: behind it nobody tries a turn that another has taken."""
    await register(database, WIDE)
    for brokers in BROKERS:
        await run_wide(database, brokers=brokers, executions=EXECUTIONS // len(BROKERS))
    turns = await value(database, "select count(*) from noetl.turn")
    assert await broken_invariants(database) == {}
    tried(f"lock on, 1 to 8 brokers, {turns} turns", f"0 doubled; {len(conflicts)} conflicts")
    assert conflicts == {}
