"""The setup of logging: one event with fields on each line, as JSON or for a console, always on stderr.

Names and messages may come from anybody. Unprintable characters are escaped, and lines of a traceback begin with a bar.
So no text can forge a line of the log. Messages of libraries become events on one line; a repeated one is logged once a
minute, with its count.
"""

from __future__ import annotations

import io
import logging
import sys
import time
from typing import TextIO

import structlog

from noetl_broker.visible import visible

REPEAT_SECONDS = 60.0  # between two lines of a repeated message of a library
MAX_REMEMBERED = 256  # different messages
MAX_MESSAGE_CHARS = 500


def configure(*, level: str, form: str) -> None:
    """Configure structlog and logging. `level` is a name of logging; `form` is "json" or "console"."""
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
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # one write for a line: several processes share a log
        cache_logger_on_first_use=True,
    )
    _take_over()


def _escaped(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape characters that end a line or move the cursor of a terminal. Other values are shown by their repr."""
    return {name: visible(value) if isinstance(value, str) else value for name, value in event.items()}


def _traceback(out: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """Write a plain traceback: a rich one shows the values of local variables, which may be payloads."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    out.writelines(f"\n  | {visible(line)}" for line in text.getvalue().splitlines() if line)


class Bridge(logging.Handler):
    """Logs the messages of libraries as events: the first line, and the message of an exception."""

    def __init__(self) -> None:
        """Handle warnings and errors."""
        super().__init__(logging.WARNING)
        self._logged: dict[tuple[str, str], tuple[float, int]] = {}  # the time of its last line, and its count since

    def emit(self, record: logging.LogRecord) -> None:
        """Log a message, unless the same was logged in the last minute."""
        try:
            message = record.getMessage().strip()
        except (TypeError, ValueError):
            message = str(record.msg)
        first = message.partition("\n")[0]
        error = record.exc_info[1] if record.exc_info else None
        key = (record.name, f"{record.msg}" if record.args else f"{first} {type(error).__name__}")
        now = time.monotonic()
        logged_at, missed = self._logged.get(key, (-REPEAT_SECONDS, 0))
        if now - logged_at < REPEAT_SECONDS:
            self._logged[key] = logged_at, missed + 1
            return
        if len(self._logged) >= MAX_REMEMBERED:
            self._logged.clear()
        self._logged[key] = now, 0
        fields = {"library": record.name, "says": first[:MAX_MESSAGE_CHARS]}
        if error is not None:
            fields["error"] = _message_of(error)[:MAX_MESSAGE_CHARS]
        if missed:
            fields["times_since"] = str(missed)
        log = structlog.get_logger(__name__)  # a cached logger would keep the stream of its first line
        level = log.error if record.levelno >= logging.ERROR else log.warning
        level("a library complains", **fields)


def _message_of(error: BaseException) -> str:
    """The class and the message of an error, without the server's DETAIL: it shows a row, and so a payload."""
    message = (
        error.args[0] if error.args and isinstance(error.args[0], str) else "" if _is_detailed(error) else str(error)
    )
    return f"{type(error).__name__}: {message}".partition("\n")[0]


def _is_detailed(error: BaseException) -> bool:
    return hasattr(error, "sqlstate")


def _take_over() -> None:
    """Send the log of the standard library, with its warnings, to ours only."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, Bridge)]:
        root.removeHandler(handler)
    root.addHandler(Bridge())
    logging.captureWarnings(capture=True)
