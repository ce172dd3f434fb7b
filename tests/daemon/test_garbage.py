"""Garbage is collected when the daemon says so, and only when enough of it is left over."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest

from noetl_broker.daemon.garbage import MOST_LEFT, collect, collected_between_batches
from tests.brokers import register, running, start, until_ended
from tests.postgres import Database

DRAINS = 50


class Ring:
    """Something that only the collector can free: it holds itself."""

    def __init__(self) -> None:
        self.itself = self


def ring() -> weakref.ref[Ring]:
    """Make a ring that nobody holds, and tell where it is."""
    return weakref.ref(Ring())


def test_little_is_left_and_much_is_collected() -> None:
    """What batches leave is counted until it is enough; by itself the interpreter does nothing."""
    with collected_between_batches():
        gone = ring()
        collect()
        little = gone() is not None
        kept: list[list[int]] = [[] for _ in range(MOST_LEFT + 1)]
        much = gone() is not None
        collect()
        assert (little, much, gone(), len(kept)) == (True, True, None, MOST_LEFT + 1)


@pytest.mark.parametrize("fault", [None, KeyError])
def test_afterwards_the_interpreter_collects_again(fault: type[Exception] | None) -> None:
    """However it ended; and nothing is left frozen."""
    inside = None
    with contextlib.suppress(KeyError), collected_between_batches():
        inside = gc.isenabled(), gc.get_freeze_count() > 0
        if fault is not None:
            raise fault
    assert (inside, gc.isenabled(), gc.get_freeze_count()) == ((False, True), True, 0)


async def test_a_daemon_with_little_to_do_leaves_nothing_and_collects_what_others_left(database: Database) -> None:
    """Each drain takes one mail and is freed by itself; and rings of any origin are collected at its end."""
    await register(database, "workflow:\n- {step: start}\n")
    with collected_between_batches():
        async with running(database):
            for _ in range(DRAINS):
                await start(database)
                await until_ended(database)
            drains = sum(isinstance(found, asyncio.TaskGroup) for found in gc.get_objects())
            gone = ring()
            kept: list[list[int]] = [[] for _ in range(MOST_LEFT + 1)]
            await start(database)
            await until_ended(database)
            assert (gone(), len(kept)) == (None, MOST_LEFT + 1)
    assert drains < DRAINS / 5
