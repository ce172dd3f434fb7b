"""One process of the broker. It reports to what started it: to systemd, or to the parent process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from noetl_broker.daemon.databases import Databases
from noetl_broker.daemon.http.health import BrokerStatus
from noetl_broker.daemon.metrics.process_status import status_of
from noetl_broker.daemon.monitoring import Monitoring, monitored
from noetl_broker.daemon.process_signals import notify, ping_seconds, serve
from noetl_broker.daemon.supervisor import PROGRESS, READY, answer_parent

STATUS_SECONDS = 5.0


async def run_process(
    databases: Databases,
    *,
    drain: bool,
    drain_seconds: float,
    tell_parent: Callable[[str], None] | None,
    monitoring: Monitoring | None,
) -> None:
    """Serve the databases until a signal, or drain them.

    `tell_parent` writes a line to the parent process; None: there is none. `monitoring` None: without a health port.
    """
    reporter = StatusReporter(databases, tell_parent)
    answering = None if tell_parent is None else asyncio.create_task(answer_parent(databases.stopping, reporter.report))
    names = {name: service.options.database for name, service in databases.services.items()}
    try:
        async with contextlib.nullcontext() if monitoring is None else monitored(names, reporter.status, monitoring):
            work = databases.drain() if drain else databases.run()
            await serve(work, databases.stopping, drain_seconds=drain_seconds)
        reporter.report()
    finally:
        if answering is not None:
            answering.cancel()


class StatusReporter:
    """Reports that the broker is ready and that its main loop turns.

    `tell_parent` writes a line to the parent process; None: systemd is told.
    """

    def __init__(self, databases: Databases, tell_parent: Callable[[str], None] | None) -> None:
        self._databases = databases
        self._tell_parent = tell_parent
        self._reported_at = time.monotonic()
        self._is_ready = False
        self._every_seconds = ping_seconds(STATUS_SECONDS / 2)
        databases.on_ready, databases.on_progress = self._ready, self._progress

    def report(self) -> None:
        """Report the counts to the parent, on request or at the end."""
        if self._tell_parent is not None:
            self._tell_parent(status_of(self._databases.services).as_line())

    async def status(self) -> BrokerStatus:
        """Give the status for the health port."""
        return BrokerStatus({"broker": status_of(self._databases.services)}, {})

    def _ready(self) -> None:
        """Each database has been checked and LISTEN works."""
        self._is_ready = True
        self._say(READY, "READY=1\nSTATUS=waiting for events")

    def _progress(self) -> None:
        """The main loop turns; it calls this at least every `sweep_seconds`."""
        if time.monotonic() - self._reported_at >= self._every_seconds:
            self._reported_at = time.monotonic()
            # A start that waits for a database does not hang.
            state = "WATCHDOG=1" if self._is_ready else "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000"
            self._say(PROGRESS, f"{state}\nSTATUS={self._databases.turns} turns taken")

    def _say(self, word: str, state: str) -> None:
        if self._tell_parent is not None:
            self._tell_parent(word)
        else:
            notify(state)
