"""Limits processes to a share of a core each, as if each had a slow machine of its own.

Every few milliseconds a process that has used more than its share is stopped until it is even, as cpulimit does. That
needs no rights and no control groups. Idle time is not saved up. A measurement ends when no process is stopped, so that
each has paid for what it used.
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

CHECK_SECONDS: Final = 0.002


class Throttle:
    """Limits processes to a share of a core each until the block ends."""

    def __init__(self, share: float, process_ids: Sequence[int]) -> None:
        """The limit begins when it is entered."""
        self._share = share
        self._process_ids = process_ids

    async def __aenter__(self) -> Self:
        """Begin to limit."""
        self._used = {process_id: _seconds(process_id) for process_id in self._process_ids}
        self._owed = dict.fromkeys(self._process_ids, 0.0)  # seconds of the processor
        self._stopped: set[int] = set()
        self._checked_at = time.perf_counter()
        self._holding = asyncio.create_task(self._hold())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Continue all processes; raises an error of the task."""
        self._holding.cancel()
        with suppress(asyncio.CancelledError):
            await self._holding

    async def settled(self) -> None:
        """Return when no process is stopped."""
        self._check()
        while self._stopped:
            await asyncio.sleep(CHECK_SECONDS)
            self._check()

    async def _hold(self) -> None:
        try:
            while True:
                await asyncio.sleep(CHECK_SECONDS)
                self._check()
        finally:
            for process_id in self._process_ids:
                with suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGCONT)

    def _check(self) -> None:
        now = time.perf_counter()
        earned = self._share * (now - self._checked_at)
        self._checked_at = now
        for process_id in self._process_ids:
            seconds = _seconds(process_id)
            owed = self._owed[process_id] + seconds - self._used[process_id] - earned
            self._used[process_id] = seconds
            # A running process cannot save unused time.
            self._owed[process_id] = owed if process_id in self._stopped else max(owed, 0.0)
            if (self._owed[process_id] > 0) != (process_id in self._stopped):
                os.kill(process_id, signal.SIGCONT if process_id in self._stopped else signal.SIGSTOP)
                self._stopped ^= {process_id}


def _seconds(process_id: int) -> float:
    """Return the processor seconds of all threads of a process, by the scheduler's nanoseconds."""
    nanoseconds = 0
    for task in Path(f"/proc/{process_id}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9
