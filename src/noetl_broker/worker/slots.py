"""The slots of a worker: so many jobs at a time, over all buckets. It decides whose turn it is for a free slot.

A worker without buckets has one loop, which takes each free slot. Several loops share the slots by turns. While another
loop waits, a loop goes on for TURN_SECONDS. Then its free slots go to the loop that has waited longest. Jobs are not
interrupted. So a full bucket starves no other one, and the calls of one turn carry many jobs each.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

TURN_SECONDS = 0.1


class SlotTaker(Protocol):
    """A loop that leases jobs for free slots."""

    @property
    def taken(self) -> int:
        """Slots of its jobs, and those for which a lease is under way."""

    @property
    def is_leasing(self) -> bool:
        """Whether a lease without completions is under way."""

    @property
    def room(self) -> int:
        """How many more jobs it may lease, whatever the other loops do."""

    def wake(self) -> None:
        """Ask for slots again."""


class Slots:
    """The slots of one worker. `is_shared`: several loops take them, so there are turns."""

    def __init__(self, number: int, *, is_shared: bool = False) -> None:
        self.number = number
        self.is_shared = is_shared
        self._takers: list[SlotTaker] = []
        self._waiting: dict[SlotTaker, None] = {}  # the one that waits longest is first
        self._turn: SlotTaker | None = None
        self._turn_ends = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def free(self) -> int:
        """Slots without a job, for which no lease is under way."""
        return self.number - sum(taker.taken for taker in self._takers)

    def join(self, taker: SlotTaker) -> None:
        """A loop begins."""
        self._takers.append(taker)

    def leave(self, taker: SlotTaker) -> None:
        """A loop has ended, with all its jobs."""
        self._takers.remove(taker)
        self.stop_waiting(taker)

    def ask(self, taker: SlotTaker) -> int:
        """The slots that a loop may lease jobs for now. 0: it waits, and is woken at its turn."""
        if not self.is_shared:
            return max(self.free, 0)
        self._waiting.setdefault(taker)
        free = min(self.free, taker.room)
        if free <= 0 or self._next() is not taker:
            return 0
        del self._waiting[taker]
        if self._turn_ends == math.inf:
            self._turn_ends = asyncio.get_running_loop().time() + TURN_SECONDS
        return free

    def stop_waiting(self, taker: SlotTaker) -> None:
        """A loop wants no slot for now."""
        self._waiting.pop(taker, None)
        self.pass_on()

    def may_keep(self, taker: SlotTaker) -> bool:
        """Whether a slot that a loop sets free may go to its own next job: no other loop waits, or it has the turn."""
        if not self._waiting.keys() - {taker}:
            return True
        return self._turn is taker and asyncio.get_running_loop().time() < self._turn_ends

    def pass_on(self) -> None:
        """Wake the loop whose turn it is, if a slot is free."""
        if self.free <= 0:
            return
        awake = self._takers if not self.is_shared else filter(None, [self._next()])
        for taker in awake:
            taker.wake()

    def _next(self) -> SlotTaker | None:
        """The loop whose turn it is. None: nobody waits, or the loop with the turn is leasing.

        The turn goes on when its time is over, or when its loop wants nothing more.
        """
        loop, turn = asyncio.get_running_loop(), self._turn
        waiting = [taker for taker in self._waiting if taker.room > 0]
        if not waiting:
            return None
        if turn is not None and loop.time() < self._turn_ends:
            if turn in waiting:
                return turn
            if turn.is_leasing:
                if self._timer is None:  # its call may hang
                    self._timer = loop.call_at(self._turn_ends, self._end_turn)
                return None
        if turn in self._waiting and len(waiting) > 1:  # now it has waited shortest
            del self._waiting[turn]
            self._waiting[turn] = None
            waiting = [taker for taker in waiting if taker is not turn]
        self._turn, self._turn_ends = waiting[0], math.inf  # it is woken, and its time begins when it asks
        return self._turn

    def _end_turn(self) -> None:
        self._timer = None
        self.pass_on()
