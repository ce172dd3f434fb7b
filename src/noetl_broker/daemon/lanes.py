"""The lanes of one process: claim mail, decide, write, commit; again until the inbox is empty.

They run at the same time, each on its own connection: while one waits for its commit, another decides.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from noetl_broker.daemon.garbage_collection import collect
from noetl_broker.daemon.lane import Lane, LaneResources
from noetl_broker.daemon.metrics.registry import DRAINS
from noetl_broker.tasks import wait_for

WAIT_SECONDS = 0.01  # of a lane without mail, while other lanes work
MAX_NEEDLESS_WAKES = 3  # by notifications in a row; anybody who can log in can notify


@dataclass(slots=True, kw_only=True)
class Lanes:
    """The lanes of one process; `drain` returns when the inbox holds nothing that this process can take."""

    shared: LaneResources
    count: int
    stopping: asyncio.Event
    _is_waiting: bool = False  # a lane waits for new mail while others work
    _needless: int = 0  # wakes since the start of the drain, or since a lane took mail
    _all_idle: asyncio.Event = field(default_factory=asyncio.Event)
    _wakes: asyncio.Event = field(default_factory=asyncio.Event)  # the lane that waits: new mail, or all are idle
    _tasks: asyncio.TaskGroup = field(init=False)  # the lanes of this drain

    async def drain(self) -> None:
        """Take turns until a claim finds the inbox empty, or only mail that other brokers hold.

        Raises a fault that no further attempt can mend, once all lanes have ended.
        """
        shared = self.shared
        shared.metrics.add(DRAINS)
        shared.fatal = None
        shared.working = 1
        self._needless = 0
        self._all_idle.clear()
        async with asyncio.TaskGroup() as self._tasks:
            await self._run_lane()
        if shared.fatal is not None:
            raise shared.fatal

    def add_lane(self) -> bool:
        """Start another lane, if the number allows it and no lane waits for work; returns whether it was started."""
        if self._is_waiting or self.shared.working >= self.count:
            return False
        self.shared.working += 1
        self._tasks.create_task(self._run_lane())
        return True

    def on_mail(self) -> bool:
        """Let a lane take new mail now, and not after the commit of those that work.

        False if all are idle or busy, or if the last notifications brought no mail.
        """
        if self._needless >= MAX_NEEDLESS_WAKES:
            return False
        if self._is_waiting:
            self._needless += not self._wakes.is_set()
            self._wakes.set()
            return True
        if not self.shared.working or self.stopping.is_set() or self.shared.fatal is not None or not self.add_lane():
            return False
        self._needless += 1
        return True

    async def _run_lane(self) -> None:
        lane = Lane(self.shared, self.add_lane)
        while not self.stopping.is_set() and self.shared.fatal is None:
            goes_on = await lane.step()
            if lane.took_mail:
                self._needless = 0
            collect()
            if not goes_on and not await self._waits_for_more():
                break

    async def _waits_for_more(self) -> bool:
        """Wait a moment while other lanes work, so that new mail need not wait for them; False when the lane ends.

        One lane waits; the others end.
        """
        self.shared.working -= 1
        if not self.shared.working:
            self._all_idle.set()
            self._wakes.set()
        if self._all_idle.is_set() or self._is_waiting:
            return False
        self._is_waiting = True
        self._wakes.clear()
        try:
            await wait_for(self._wakes, WAIT_SECONDS)
        finally:
            self._is_waiting = False
        if self._all_idle.is_set():
            return False
        self.shared.working += 1
        return True
