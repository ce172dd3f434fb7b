"""Runs what serves until it is stopped: a first signal asks it to finish, a second one ends the process at once.

SIGHUP, which comes when a terminal is closed, is such a first signal, and never a second one: a shell and the system
may both send it, and some supervisors send it after SIGTERM. Where it is ignored, as under nohup, it stays so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine, Iterator
from functools import cache
from typing import Any, NoReturn, TypeVar

import sdnotify  # type: ignore[import-untyped]
import structlog

from noetl_broker.cli.stderr import end_at_once

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def serve(work: Coroutine[Any, Any, Result], stopping: asyncio.Event, *, drain_seconds: float) -> Result | None:
    """Await the work; after a signal (or once `stopping` is set) it has `drain_seconds`, then the process ends with 0.

    What is then still under way is rolled back by the database when our connections close.
    """
    loop, signals = asyncio.get_running_loop(), signals_for_us()
    for number in signals:
        loop.add_signal_handler(number, _on_signal, number, stopping)
    task = asyncio.ensure_future(work)
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait({task}, timeout=drain_seconds)
        if not task.done():
            log.warning("did not finish in time; the database rolls back what was under way", seconds=drain_seconds)
            end_at_once(0)
        return task.result()
    except Exception:
        # A stop while the database was away: there was nothing to finish.
        if stopping.is_set():
            return None
        raise
    finally:
        stop.cancel()
        for number in signals:
            loop.remove_signal_handler(number)


def signals_for_us() -> list[signal.Signals]:
    """Those that ask a service to finish; not what whoever started us has said to ignore."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def is_second(number: signal.Signals) -> bool:
    """Whether a signal that comes while a service finishes ends it at once."""
    return number != signal.SIGHUP


@contextlib.contextmanager
def exit_at_signal() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end what does not serve as an error would: what it has started is stopped."""
    before = {number: signal.getsignal(number) for number in signals_for_us() if number != signal.SIGINT}
    for number in before:
        signal.signal(number, exit_with)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_with(number: int, _frame: object) -> NoReturn:
    """Handle a signal: the exit code says which it was."""
    raise SystemExit(128 + number)


def _on_signal(number: signal.Signals, stopping: asyncio.Event) -> None:
    if stopping.is_set():
        if is_second(number):
            end_at_once(128 + number)
        return
    notify("STOPPING=1")
    log.info("stopping", signal=number.name, hint="a second signal ends at once")
    stopping.set()


def notify(state: str) -> None:
    """Send one state, such as READY=1, to systemd where it has started us; silent elsewhere."""
    if os.environ.get("NOTIFY_SOCKET"):
        _notifier().notify(state)


def ping_seconds(most: float) -> float:
    """How often to tell systemd that we go on: twice in the time that its watchdog waits, and at least each `most`."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return min(most, int(microseconds) / 2_000_000) if microseconds.isdecimal() else most


@cache
def _notifier() -> sdnotify.SystemdNotifier:
    notifier = sdnotify.SystemdNotifier()
    if notifier.socket is not None:
        notifier.socket.settimeout(0)  # a supervisor that does not read must not stop the daemon
    return notifier
