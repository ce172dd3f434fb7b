"""Keeps the listener connected, and probes it.

The listener only says when to look for mail. While it is not connected, the daemon polls.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from noetl_broker.daemon.background import attempt
from noetl_broker.daemon.metrics.registry import LISTENER_DEAF
from noetl_broker.daemon.metrics.values import MetricValues
from noetl_broker.store.connect.connection import Pool, expire_if_moved
from noetl_broker.store.connect.listener import Listener
from noetl_broker.tasks import wait_for

log = structlog.get_logger(__name__)

MAX_PROBE_PAUSE_SECONDS = 5.0
SHORT_LIVED_SECONDS = 5.0  # after a connection that lived no longer, pause before the next one
RECONNECT_PAUSE_SECONDS = 0.2
PROBE_TIMEOUT_SECONDS = 4.0  # a probe takes milliseconds; a dead listener is found within 10 seconds


async def keep_listening(listener: Listener, stopping: asyncio.Event) -> None:
    """Reconnect whenever the connection is lost. Raises a fault that no further attempt can mend."""
    try:
        while True:
            await listener.lost.wait()
            if not listener.connected:
                log.warning("the listener has lost its connection, and connects again")
                if time.monotonic() - listener.connected_at < SHORT_LIVED_SECONDS:
                    await wait_for(stopping, RECONNECT_PAUSE_SECONDS)
            await listener.keep_connected(stopping)
    except Exception as error:
        log.error("the listener cannot connect again, the broker ends", error=str(error))  # noqa: TRY400 - no traceback
        raise
    finally:
        listener.notified.set()  # the main loop wakes and sees it


async def keep_probing(listener: Listener, pool: Pool, metrics: MetricValues, *, seconds: float) -> None:
    """Probe the listener at intervals: half open, or behind a pooler, it can be dead without an error."""
    probe = Probe(listener, pool, metrics)
    while True:
        await attempt(probe.run(), on_fault="the probe of the listener failed, will try again")
        await asyncio.sleep(min(seconds, MAX_PROBE_PAUSE_SECONDS))


class Probe:
    """Notifies the listener through another connection, and checks that it hears that."""

    def __init__(self, listener: Listener, pool: Pool, metrics: MetricValues) -> None:
        """Nothing sent yet."""
        self._listener = listener
        self._pool = pool
        self._metrics = metrics
        self._sent_at = 0.0  # monotonic seconds

    async def run(self) -> None:
        """Close the connection if it did not hear the last probe in time; otherwise send the next probe."""
        if self._listener.deaf_since(self._sent_at) and time.monotonic() - self._sent_at > PROBE_TIMEOUT_SECONDS:
            log.error(
                "the listener hears nothing; it connects again",
                hint="LISTEN does not work through a transaction pooler",
            )
            self._metrics.add(LISTENER_DEAF)
            await self._listener.close()
        await expire_if_moved(self._pool)
        # First, because a full queue takes no probe; asking may empty it.
        await self._listener.check_queue(self._pool)
        if not self._listener.deaf_since(self._sent_at):
            sent_at = time.monotonic()
            await self._listener.probe(self._pool)
            self._sent_at = sent_at  # only after it succeeded: nobody hears a probe that failed
