"""Signals: the first asks a service to finish, a second one ends the process at once. Also the protocol of systemd.

SIGHUP counts as a first signal and never as a second. A shell and the system may both send it, and some supervisors
send it after SIGTERM. When it is ignored, as under nohup, it stays ignored.
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

from noetl_broker.logs.stderr import end_at_once

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def serve(work: Coroutine[Any, Any, Result], stopping: asyncio.Event, *, drain_seconds: float) -> Result | None:
    """Await the work. After a signal, or once `stopping` is set, it has `drain_seconds`; then the process ends with 0.

    The database rolls back open transactions when the connections close.
    """
    loop, signals = asyncio.get_running_loop(), handled_signals()
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
        if stopping.is_set():
            return None  # the database was away: there was nothing to finish
        raise
    finally:
        stop.cancel()
        for number in signals:
            loop.remove_signal_handler(number)


def handled_signals() -> list[signal.Signals]:
    """The signals that ask a service to finish, without signals that the parent process has set to be ignored."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def is_second(number: signal.Signals) -> bool:
    """Whether this signal, sent while a service finishes, ends the process at once."""
    return number != signal.SIGHUP


@contextlib.contextmanager
def exit_at_signal() -> Iterator[None]:
    """In a command that is no service, SIGTERM and SIGHUP raise SystemExit, so that cleanup code runs."""
    before = {number: signal.getsignal(number) for number in handled_signals() if number != signal.SIGINT}
    for number in before:
        signal.signal(number, exit_with)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_with(number: int, _frame: object) -> NoReturn:
    """Exit with the code of the signal."""
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
    """Send a state such as READY=1 to systemd, if it started this process."""
    if os.environ.get("NOTIFY_SOCKET"):
        _notifier().notify(state)


def ping_seconds(most: float) -> float:
    """Seconds between two WATCHDOG=1: half of the watchdog's time, at most `most`."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return min(most, int(microseconds) / 2_000_000) if microseconds.isdecimal() else most


@cache
def _notifier() -> sdnotify.SystemdNotifier:
    notifier = sdnotify.SystemdNotifier()
    if notifier.socket is not None:
        notifier.socket.settimeout(0)  # the daemon does not wait for a supervisor that does not read
    return notifier
