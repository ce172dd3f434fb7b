"""Background tasks of the daemon: a fault is logged, and never ends the daemon."""

from __future__ import annotations

from collections.abc import Awaitable

import structlog

from noetl_broker.store.connect.sqlstates import fault_class_of, is_transient, log_fields, trace_of

log = structlog.get_logger(__name__)


async def attempt(work: Awaitable[object], *, on_fault: str) -> bool:
    """Await the work and return whether it succeeded; log `on_fault` when it raises."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 - a background task never ends the daemon
        log_fault(on_fault, error)
        return False
    return True


def log_fault(event: str, error: Exception) -> None:
    """Log a fault, unless it passes by itself: the main loop meets and logs such a fault too."""
    if fault_class_of(error).logged_as_error:
        log.error(event, **log_fields(error), exc_info=None if is_transient(error) else trace_of(error))
