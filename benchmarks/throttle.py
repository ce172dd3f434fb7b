"""Processes that get a share of a core each, as if each had a slow machine of its own.

Every few milliseconds it is looked at what each has used: who has had more than its share is stopped until it is paid
for, as cpulimit does it, which needs no rights and no control groups. Nobody saves up while it is idle, and a time that
is measured ends when all have paid, so that it holds no processor's time for nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

LOOK_SECONDS: Final = 0.002


class Throttle:
    """Holds processes to a share of a core each while it is entered; afterwards they go on unhindered."""

    def __init__(self, share: float, process_ids: Sequence[int]) -> None:
        """Nothing is held before it is entered."""
        self._share = share
        self._process_ids = process_ids

    async def __aenter__(self) -> Self:
        """From now on."""
        self._used = {process_id: _seconds(process_id) for process_id in self._process_ids}
        self._owed = dict.fromkeys(self._process_ids, 0.0)  # seconds of the processor
        self._stopped: set[int] = set()
        self._looked = time.perf_counter()
        self._holding = asyncio.create_task(self._hold())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Raises what went wrong meanwhile, with everybody going on."""
        self._holding.cancel()
        with suppress(asyncio.CancelledError):
            await self._holding

    async def settled(self) -> None:
        """Return when nobody owes anything."""
        self._look()
        while self._stopped:
            await asyncio.sleep(LOOK_SECONDS)
            self._look()

    async def _hold(self) -> None:
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                self._look()
        finally:
            for process_id in self._process_ids:
                with suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGCONT)

    def _look(self) -> None:
        now = time.perf_counter()
        earned = self._share * (now - self._looked)
        self._looked = now
        for process_id in self._process_ids:
            seconds = _seconds(process_id)
            owed = self._owed[process_id] + seconds - self._used[process_id] - earned
            self._used[process_id] = seconds
            # Who was stopped has earned all of that; who was not has left unused what it did not owe.
            self._owed[process_id] = owed if process_id in self._stopped else max(owed, 0.0)
            if (self._owed[process_id] > 0) != (process_id in self._stopped):
                os.kill(process_id, signal.SIGCONT if process_id in self._stopped else signal.SIGSTOP)
                self._stopped ^= {process_id}


def _seconds(process_id: int) -> float:
    """What the threads of a process have used of the processor, by the scheduler's own count of nanoseconds."""
    nanoseconds = 0
    for task in Path(f"/proc/{process_id}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9
