"""The worker's log: through structlog where the program has configured it, else through the standard `logging`.

The command line configures structlog. A program that imports `Worker` mostly does not, and structlog by itself writes
every line to stdout, debug lines too. `logging` by itself writes warnings and errors to stderr, and nothing below.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog


class Log:
    """Writes events with fields; `name` is the module's, so the standard logger of all of them is `noetl_broker`."""

    def __init__(self, name: str) -> None:
        """Where a line goes is asked each time: a program may configure its log when it likes."""
        self._structured = structlog.get_logger(name)
        self._standard = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """Write what is of interest to whoever looks for a fault."""
        self._write("debug", logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Write what went as it should."""
        self._write("info", logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write what did not, and is tried again or seen to by somebody."""
        self._write("warning", logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Write what a person should look at."""
        self._write("error", logging.ERROR, event, fields)

    def _write(self, method: str, level: int, event: str, fields: dict[str, Any]) -> None:
        if structlog.is_configured():
            getattr(self._structured, method)(event, **fields)
        elif self._standard.isEnabledFor(level):
            # By repr, so that a line is one line whatever text stands in it.
            told = " ".join((event, *(f"{name}={value!r}" for name, value in fields.items())))
            self._standard.log(level, "%s", told, stacklevel=3)
