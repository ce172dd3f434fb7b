"""Keeps a worker in the list of workers: at its start, every 15 seconds, and at its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from noetl_broker import __version__
from noetl_broker.errors import DatabaseFault, PermissionFault, SchemaFault
from noetl_broker.store.worker.jobs import Announcement, JobDatabase, RefusedFault, announce_worker
from noetl_broker.worker.logger import Log
from noetl_broker.worker.options import WorkerOptions

ANNOUNCE_SECONDS = 15.0
FAULTS = (DatabaseFault, PermissionFault, SchemaFault, RefusedFault)
GOODBYE_SECONDS = 1.0  # for the last word: without it, the list forgets the worker after a minute

log = Log(__name__)


class Announcer:
    """Announces one worker to one queue. A worker that may not announce itself still works."""

    def __init__(
        self, database: JobDatabase, options: WorkerOptions, types: tuple[str, ...] | None, leased: Callable[[], int]
    ) -> None:
        """`leased` counts its jobs of this queue."""
        self._database = database
        self._about = Announcement(
            options.worker_id, options.pools, types, options.concurrency, 0, socket.gethostname(), __version__
        )
        self._leased = leased

    async def run(self) -> None:
        """Announce the worker until it is cancelled."""
        is_told = False
        while True:
            try:
                await announce_worker(self._database, self._about._replace(leased=self._leased()))
            except FAULTS as fault:
                tell = log.debug if is_told or isinstance(fault, DatabaseFault) else log.warning
                is_told = True
                tell("worker_not_announced", error=str(fault))
            await asyncio.sleep(ANNOUNCE_SECONDS)

    async def stop(self) -> None:
        """Take the worker out of the list, if the database answers soon."""
        with contextlib.suppress(*FAULTS, TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await announce_worker(self._database, self._about._replace(stops=True))
