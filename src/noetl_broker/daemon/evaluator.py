"""The lanes of one process: claim mail, decide, write, commit; again until nothing is left.

They run beside each other, each on a connection of its own: while one waits for its commit, another decides.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from noetl_broker.daemon.garbage import collect
from noetl_broker.daemon.lane import Lane, Shared

LOOK_SECONDS = 0.01  # between looks for more while other lanes are at work, which look for it too when they are done


@dataclass(slots=True, kw_only=True)
class Evaluator(Shared):
    """The lanes of one process; `drain` returns when the inbox holds nothing that this process can take."""

    lanes: int
    stopping: asyncio.Event
    waiting: bool = False  # another one, for what may come while they are
    done: asyncio.Event = field(default_factory=asyncio.Event)  # none is at work any more
    tasks: asyncio.TaskGroup = field(init=False)  # the lanes of this drain

    async def drain(self) -> None:
        """Take turns until a claim finds the inbox empty (or nothing but mail that other brokers hold).

        Raises what no further try will mend, once all lanes have ended.
        """
        self.counters.drains += 1
        self.hopeless = None
        self.at_work = 1
        self.done.clear()
        async with asyncio.TaskGroup() as self.tasks:
            await self._run_lane()
        if self.hopeless is not None:
            raise self.hopeless

    def add_lane(self) -> None:
        """For a few mails a second lane would only be in the way."""
        if not self.waiting and self.at_work < self.lanes:  # else it comes by itself
            self.at_work += 1
            self.tasks.create_task(self._run_lane())

    async def _run_lane(self) -> None:
        lane = Lane(self, self.add_lane)
        while not self.stopping.is_set() and self.hopeless is None:
            goes_on = await lane.step()
            collect()
            if not goes_on and not await self._more_may_come():
                break

    async def _more_may_come(self) -> bool:
        """One lane pauses while others are at work: what comes meanwhile need not wait until they are done."""
        self.at_work -= 1
        if not self.at_work:
            self.done.set()
        if self.done.is_set() or self.waiting:
            return False
        self.waiting = True
        try:
            await asyncio.wait_for(self.done.wait(), LOOK_SECONDS)
        except TimeoutError:
            pass
        finally:
            self.waiting = False
        if self.done.is_set():
            return False
        self.at_work += 1
        return True
