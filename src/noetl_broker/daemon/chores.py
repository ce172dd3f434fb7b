"""What a daemon does beside its turns: a chore never ends it."""

from __future__ import annotations

import structlog

from noetl_broker.store.faults import is_transient, kind_of, told, trace_of

log = structlog.get_logger(__name__)


def tell_fault_of_chore(event: str, error: Exception) -> None:
    """Log what a chore met; what passes by itself the main loop tells as well."""
    if kind_of(error).loud:
        log.error(event, **told(error), exc_info=None if is_transient(error) else trace_of(error))
