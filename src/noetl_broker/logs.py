"""Logging: one event with fields a line, JSON for machines or console for people, always on stderr."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(*, level: str, form: str) -> None:
    """`level` as logging names it, `form` "json" or "console" (colour only on a terminal)."""
    renderer: structlog.typing.Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        # No rich tracebacks: they show the values of local variables, and those may be anybody's data.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    # The driver's own words bypass ours, with tracebacks; what they speak of we see, and say, ourselves.
    driver = logging.getLogger("asyncpg")
    driver.addHandler(logging.NullHandler())
    driver.propagate = False
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if form == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
