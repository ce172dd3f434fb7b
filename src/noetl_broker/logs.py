"""Logging: one event with fields a line, JSON for machines or console for people, always on stderr.

Names and messages come from anybody. What is not printable in them is escaped, and the lines of a traceback stand
behind a bar, so that no line of the log is anybody's but ours.
"""

from __future__ import annotations

import io
import logging
import sys
from typing import TextIO

import structlog


def configure(*, level: str, form: str) -> None:
    """`level` as logging names it, `form` "json" or "console" (colour only on a terminal)."""
    renderer: structlog.typing.Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback)
    # The driver's own words bypass ours, with tracebacks; what they speak of we see, and say, ourselves.
    driver = logging.getLogger("asyncpg")
    driver.addHandler(logging.NullHandler())
    driver.propagate = False
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if form == "json" else _escaped,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # a line is one write: processes share a log
        cache_logger_on_first_use=True,
    )


def _escaped(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape what would end a line or move a terminal's cursor; what holds text deeper inside is shown by its repr."""
    return {name: _printable(value) if isinstance(value, str) else value for name, value in event.items()}


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]


def _traceback(out: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """Write a traceback. A plain one: rich ones show the values of local variables, which may be anybody's data."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    out.writelines(f"\n  | {_printable(line)}" for line in text.getvalue().splitlines() if line)
