"""The worker's log: structlog if the program has configured it, otherwise the standard `logging`.

The command line configures structlog. A program that imports `Worker` may not, and structlog would then write every
line to stdout, also debug lines. Unconfigured, `logging` writes only warnings and errors, to stderr.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import structlog

from noetl_broker.node_ids import node_id

if TYPE_CHECKING:
    from noetl_broker.store.worker.jobs import LeasedJob


def job_fields(job: LeasedJob) -> dict[str, Any]:
    """The fields by which lines name a job and its attempt; `node_id` names an item or a later visit."""
    fields = {"queue_id": job.queue_id, "execution_id": job.execution_id, "step": job.node_name}
    if job.node_id != node_id(job.execution_id, job.node_name, 1):
        fields["node_id"] = job.node_id
    return fields | {"type": job.node_type, "attempt": job.attempt}


class Log:
    """Writes events with fields. `name` is the name of the module, so `noetl_broker` is the parent of all loggers."""

    def __init__(self, name: str) -> None:
        """The destination is chosen for each line: a program may configure its log at any time."""
        self._structured = structlog.get_logger(name)
        self._standard = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """Log an event that helps to find a fault."""
        self._write("debug", logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log an event of normal work."""
        self._write("info", logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log a fault after which the work is done again, or that somebody else handles."""
        self._write("warning", logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log a fault that a person should look at."""
        self._write("error", logging.ERROR, event, fields)

    def _write(self, method: str, level: int, event: str, fields: dict[str, Any]) -> None:
        if structlog.is_configured():
            getattr(self._structured, method)(event, **fields)
        elif self._standard.isEnabledFor(level):
            # repr keeps any text on one line.
            known = {**fields, **structlog.contextvars.get_contextvars(), **fields}  # own fields first
            line = " ".join((event, *(f"{name}={value!r}" for name, value in known.items())))
            self._standard.log(level, "%s", line, stacklevel=3)
