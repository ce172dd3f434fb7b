"""Copies signals by key from their bucket to the other buckets that this process serves.

A row of `signal_copy` says that a signal is to be copied. It is deleted after the target has committed the copy. A copy
keeps the id of its signal, so one that is written again is none.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from noetl_broker.daemon.background import attempt, log_fault
from noetl_broker.growing_pauses import Backoff
from noetl_broker.store.connect.buckets import MOST, bucket_of_id
from noetl_broker.store.connect.connection import ANSWER_SECONDS, Pool, borrowed
from noetl_broker.store.queries import sql
from noetl_broker.store.row_layout import columns_of
from noetl_broker.tasks import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from noetl_broker.store.connect.dsn import Database

MAX_COPIES: Final = 200  # to one bucket, of one read
MAX_TOGETHER: Final = 5  # reads that one transaction writes
TOGETHER_SECONDS: Final = 0.002  # for each bucket of the process: signals of this time are copied together
PAUSE_SECONDS: Final = (0.02, 5.0)  # before the next attempt at a bucket
COLUMNS: Final = ("signal_id", "name", "key", "payload", "sent_at", "expires_at", "hops", "sent_by")


@dataclass(slots=True, eq=False)
class _Copies:
    """Signals of one bucket that are to be written in another one; the outcome tells whether they were."""

    origin: int
    signals: list[Any]
    outcome: bool | Exception | None = None


class Served:
    """A bucket that this process serves. Copies from all other buckets are written together, on one connection."""

    def __init__(self, pool: Pool, on_copies: Callable[[float], None]) -> None:
        """`on_copies` is called with the age of the oldest signal when copies are written: the matcher is to wake."""
        self._pool = pool
        self._on_copies = on_copies
        self._waiting: list[_Copies] = []
        self._writing = asyncio.Lock()
        self._written_at = 0.0  # monotonic seconds

    async def write(self, signals: list[Any], *, pause_seconds: float) -> bool:
        """Whether the copies are written; False: another broker copies between the same two buckets."""
        own = _Copies(bucket_of_id(signals[0]["signal_id"]), signals)
        self._waiting.append(own)
        try:
            async with self._writing:
                while own.outcome is None:
                    await asyncio.sleep(self._written_at + pause_seconds - time.monotonic())
                    await self._write_waiting()
        finally:
            if own in self._waiting:  # cancelled
                self._waiting.remove(own)
        if isinstance(own.outcome, Exception):
            raise own.outcome
        return own.outcome

    async def _write_waiting(self) -> None:
        """Write what has waited longest; all of it has the same outcome, but for the locks."""
        together = self._waiting[:MAX_TOGETHER]
        signals = [signal for each in together for signal in each.signals]
        columns = ([signal[name] for signal in signals] for name in COLUMNS)
        try:
            async with borrowed(self._pool, ANSWER_SECONDS) as connection:
                [row] = await connection.fetch(sql("write_copies"), [each.origin for each in together], *columns)
        except Exception as error:  # noqa: BLE001 - raised again by `write`
            for each in together:
                each.outcome = error
        else:
            for each in together:
                each.outcome = each.origin in row["held"]
            if row["late"] is not None:
                self._on_copies(row["late"])
        self._waiting = [each for each in self._waiting if each.outcome is None]
        self._written_at = time.monotonic()


class Copier:
    """Copies the signals of one bucket; a bucket that does not answer delays no other one."""

    def __init__(self, database: Database, pool: Pool, served: Mapping[Database, Served]) -> None:
        """`served` has the buckets of this process, also of other installations; it changes while they run."""
        self._pool = pool
        self._served = served
        self._buckets = {number: database.bucket(number) for number in range(MOST)}
        self._woken = asyncio.Event()
        self._writing: dict[int, asyncio.Task[None]] = {}  # one for each bucket
        self._pauses = {number: Backoff(*PAUSE_SECONDS) for number in range(MOST)}
        self._written: list[tuple[int, int]] = []  # target and signal, as in signal_copy

    def wake(self) -> None:
        """A signal has been sent."""
        self._woken.set()

    async def keep_copying(self, sweep_seconds: float) -> None:
        """Copy and sleep, for ever. A fault is logged, and never ends the loop."""
        faults = Backoff(*PAUSE_SECONDS)
        try:
            while True:
                self._woken.clear()
                began = time.monotonic()
                if await attempt(self.copy(), on_fault="signals could not be copied, will try again"):
                    faults.reset()
                    await wait_for(self._woken, sweep_seconds)
                    await asyncio.sleep(began + TOGETHER_SECONDS * len(self._served) - time.monotonic())
                else:
                    await asyncio.sleep(faults.next())
        finally:
            writing = [*self._writing.values()]
            for task in writing:
                task.cancel()
            await asyncio.gather(*writing, return_exceptions=True)

    async def copy_all(self) -> int:
        """Copy until nothing is left for the buckets that are served; returns how often one was written to."""
        total = 0
        while await self.copy() or self._writing:
            total += len(self._writing)
            await asyncio.gather(*self._writing.values())
        return total

    async def copy(self) -> int:
        """Delete what the targets have committed, and begin to write what is left; returns how many signals that is."""
        ready = [n for n, bucket in self._buckets.items() if bucket in self._served and n not in self._writing]
        async with borrowed(self._pool, ANSWER_SECONDS) as connection:
            if self._written:
                written = [*self._written]
                await connection.execute(sql("delete_copies"), *columns_of(written, 2))
                del self._written[: len(written)]
            signals = await connection.fetch(sql("read_copies"), ready, MAX_COPIES)
        copies: dict[int, list[Any]] = defaultdict(list)
        for signal in signals:
            for target in signal["targets"]:
                if signal["name"] is None:
                    self._written.append((target, signal["signal_id"]))  # it was too old
                    self.wake()
                else:
                    copies[target].append(signal)
        for target, rows in copies.items():
            self._writing[target] = asyncio.create_task(self._write(target, rows), name=f"copies to {target}")
        return len(signals)

    async def _write(self, target: int, signals: list[Any]) -> None:
        """Write copies in one bucket, or wait before the next attempt."""
        pause = self._pauses[target]
        try:
            served = self._served.get(self._buckets[target])
            if served and await served.write(signals, pause_seconds=TOGETHER_SECONDS * len(self._served)):
                self._written += [(target, signal["signal_id"]) for signal in signals]
                pause.reset()
            else:
                await asyncio.sleep(pause.next())
        except Exception as error:  # noqa: BLE001 - a bucket that does not answer ends nothing
            log_fault("signals could not be copied to a bucket, will try again", error)
            await asyncio.sleep(pause.next())
        finally:
            del self._writing[target]
            self.wake()
