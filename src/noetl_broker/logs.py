"""Logging: one event with fields a line, JSON for machines or console for people, always on stderr.

Names and messages come from anybody. What is not printable in them is escaped, and the lines of a traceback stand
behind a bar, so that no line of the log is anybody's but ours. What libraries say (asyncio, the driver, warnings) is an
event as well, on one line, and what one says again and again is told once a minute, with how often.
"""

from __future__ import annotations

import io
import logging
import sys
import time
from typing import TextIO

import structlog

from noetl_broker.visible import visible

SILENCE_SECONDS = 60.0  # between two lines for what a library says again and again
MOST_HEARD = 256  # different things
LONGEST_MESSAGE = 500


def configure(*, level: str, form: str) -> None:
    """`level` as logging names it, `form` "json" or "console" (colour only on a terminal)."""
    renderer: structlog.typing.Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback)
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
    _take_over()


def _escaped(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape what would end a line or move a terminal's cursor; what holds text deeper inside is shown by its repr."""
    return {name: visible(value) if isinstance(value, str) else value for name, value in event.items()}


def _traceback(out: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """Write a traceback. A plain one: rich ones show the values of local variables, which may be anybody's data."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    out.writelines(f"\n  | {visible(line)}" for line in text.getvalue().splitlines() if line)


class Bridge(logging.Handler):
    """Tells what libraries log as events of ours: the first line of it, and of an error its own words."""

    def __init__(self) -> None:
        """It has heard nothing yet."""
        super().__init__(logging.WARNING)
        self._heard: dict[tuple[str, str], tuple[float, int]] = {}  # when each was told, and how often heard since

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it, unless the same was told in the last minute."""
        try:
            message = record.getMessage().strip()
        except (TypeError, ValueError):
            message = str(record.msg)
        first = message.partition("\n")[0]
        error = record.exc_info[1] if record.exc_info else None
        key = (record.name, f"{record.msg}" if record.args else f"{first} {type(error).__name__}")
        now = time.monotonic()
        told_at, missed = self._heard.get(key, (-SILENCE_SECONDS, 0))
        if now - told_at < SILENCE_SECONDS:
            self._heard[key] = told_at, missed + 1
            return
        if len(self._heard) >= MOST_HEARD:
            self._heard.clear()
        self._heard[key] = now, 0
        fields = {"library": record.name, "says": first[:LONGEST_MESSAGE]}
        if error is not None:
            fields["error"] = _words_of(error)[:LONGEST_MESSAGE]
        if missed:
            fields["times_since"] = str(missed)
        log = structlog.get_logger(__name__)  # anew: one that is kept writes to the stream of its first line
        tell = log.error if record.levelno >= logging.ERROR else log.warning
        tell("a library complains", **fields)


def _words_of(error: BaseException) -> str:
    """Give an error's kind and message; of the server's not the DETAIL, which shows a row, and a row holds payloads."""
    said = error.args[0] if error.args and isinstance(error.args[0], str) else "" if _is_detailed(error) else str(error)
    return f"{type(error).__name__}: {said}".partition("\n")[0]


def _is_detailed(error: BaseException) -> bool:
    return hasattr(error, "sqlstate")


def _take_over() -> None:
    """Let the standard library's log, with the warnings, end in ours, and nowhere else."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, Bridge)]:
        root.removeHandler(handler)
    root.addHandler(Bridge())
    logging.captureWarnings(capture=True)
