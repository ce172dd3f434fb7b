"""Keeping the listener alive: it is connected again when it is lost, and rung to see whether it hears.

Meanwhile mail is found by looking again: the listener says when to look, and nothing else hangs on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog

from noetl_broker.daemon.chores import tell_fault_of_chore
from noetl_broker.daemon.counters import Counters
from noetl_broker.store.bell import Bell
from noetl_broker.store.pool import Pool

log = structlog.get_logger(__name__)

WATCH_SECONDS = 5.0  # between looks at the listener, at most
SHORT_SECONDS = 5.0  # of a connection; the next one comes after a pause then
PAUSE_SECONDS = 0.2
PROBE_TIMEOUT_SECONDS = 4.0  # a probe is heard within milliseconds; a dead listener is so found within 10 seconds


async def keep_listening(bell: Bell, stopping: asyncio.Event) -> None:
    """Connect again whenever the connection is lost; raises what no further try will mend, and rings before."""
    try:
        while True:
            await bell.lost.wait()
            if not bell.connected:
                log.warning("the listener has lost its connection, and connects again")
                if time.monotonic() - bell.connected_at < SHORT_SECONDS:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stopping.wait(), PAUSE_SECONDS)
            await bell.keep_connected(stopping)
    except Exception as error:
        log.error("the listener cannot connect again, the broker ends", error=str(error))  # noqa: TRY400 - no traceback
        raise
    finally:
        bell.rung.set()


async def watch_listener(bell: Bell, pool: Pool, counters: Counters, *, seconds: float) -> None:
    """A listener can be dead without knowing it (half-open, behind a pooler): ring it and see what it hears."""
    probed_at = 0.0
    while True:
        try:
            if bell.deaf_since(probed_at) and time.monotonic() - probed_at > PROBE_TIMEOUT_SECONDS:
                log.error(
                    "the listener hears nothing; it connects again",
                    hint="LISTEN does not work through a transaction pooler",
                )
                counters.deaf += 1
                await bell.close()
            await bell.look_at_queue(pool)  # first: a full queue lets no probe in, and to ask may empty it
            if not bell.deaf_since(probed_at):
                asked_at = time.monotonic()
                await bell.probe(pool)
                probed_at = asked_at  # only what was rung can be heard
        except Exception as error:  # noqa: BLE001 - a chore never ends the daemon
            tell_fault_of_chore("the bell watch failed, will try again", error)
        await asyncio.sleep(min(seconds, WATCH_SECONDS))
