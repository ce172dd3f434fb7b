"""Garbage is collected only when the daemon starts it, and only above the threshold."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest

from noetl_broker.daemon.garbage_collection import THRESHOLD, collect, collected_between_batches
from tests.brokers import PATIENCE_SECONDS, register, running, start, until_ended
from tests.chaos.under_load import leave_core
from tests.postgres import Database

# Lists that are made of freed ones do not count, so a few more than the threshold are not enough.
MANY = 2 * THRESHOLD


class Cycle:
    """An object that only the collector can free: it refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def cycle() -> weakref.ref[Cycle]:
    """Make an unreferenced cycle, and give a weak reference to it."""
    return weakref.ref(Cycle())


def test_garbage_is_collected_above_the_threshold() -> None:
    """The interpreter itself collects nothing meanwhile."""
    with collected_between_batches():
        gone = cycle()
        collect()
        little = gone() is not None
        kept: list[list[int]] = [[] for _ in range(MANY)]
        much = gone() is not None
        collect()
        assert (little, much, gone(), len(kept)) == (True, True, None, MANY)


@pytest.mark.parametrize("fault", [None, KeyError])
def test_afterwards_the_interpreter_collects_by_itself_again(fault: type[Exception] | None) -> None:
    """Also after an exception; no object stays frozen."""
    inside = None
    with contextlib.suppress(KeyError), collected_between_batches():
        inside = gc.isenabled(), gc.get_freeze_count() > 0
        if fault is not None:
            raise fault
    assert (inside, gc.isenabled(), gc.get_freeze_count()) == ((False, True), True, 0)


async def test_an_idle_daemon_collects_the_garbage_of_others(database: Database) -> None:
    """A drain of one mail leaves none itself."""
    await register(database, "workflow:\n- {step: start}\n")
    with collected_between_batches():
        async with running(database):
            gone = cycle()
            kept: list[list[int]] = [[] for _ in range(MANY)]
            await start(database)
            await until_ended(database)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while gone() is not None:  # the lane collects after its commit
                    await leave_core()
            assert len(kept) == MANY
