"""Adds what the functions of a worker print and log to the log of their attempt.

Functions run in the worker's own process, several at a time. A context variable says whose attempt prints. It holds in
the function, in what is draining, and in the thread that runs it; a thread that it starts itself has none.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, TextIO, cast

from noetl_broker.worker.job_log import PRINTED_LEVEL, JobLog, Output

STEPS_OF_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))
OWN_LOGGERS = "noetl_broker"


class Outputs(dict[str, Output]):
    """The streams of one attempt, by name."""

    def __init__(self, log: JobLog) -> None:
        super().__init__()
        self._log = log

    def write(self, name: str, level: str, text: str) -> None:
        """Add text to the stream of this name."""
        if name not in self:
            self[name] = self._log.output(level)
        self[name].write(text.encode("utf-8", "backslashreplace"))


_outputs: ContextVar[Outputs | None] = ContextVar("outputs", default=None)


@contextlib.contextmanager
def captured(log: JobLog) -> Iterator[None]:
    """Add what this context prints and logs to a log. Needs `capturing`."""
    outputs = Outputs(log)
    token = _outputs.set(outputs)
    try:
        yield
    finally:
        _outputs.reset(token)
        for output in outputs.values():
            output.end()


class CopyingStream:
    """A standard stream whose text is also added to the log of the attempt that prints."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, text: str) -> int:
        """Write to the stream, as without it."""
        outputs = _outputs.get()
        # A record of `logging` is added by itself, with its level.
        if outputs is not None and sys._getframe(1).f_globals.get("__name__") != "logging":  # noqa: SLF001 - of CPython
            outputs.write(self._name, PRINTED_LEVEL, text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        """All else is the stream's."""
        return getattr(self._stream, name)


_formatter = logging.Formatter("%(name)s: %(message)s")


def add_record(record: logging.LogRecord) -> None:
    """Add a record of `logging` to the log of the attempt that makes it, with its traceback."""
    outputs = _outputs.get()
    if outputs is None or record.name.partition(".")[0] == OWN_LOGGERS:
        return
    level = next((name for number, name in STEPS_OF_LEVELS if record.levelno >= number), "debug")
    with contextlib.suppress(Exception):  # wrong arguments of a log call: its handlers report them
        outputs.write(f"logging {level}", level, f"{_formatter.format(record)}\n")


_users = 0


@contextlib.contextmanager
def capturing() -> Iterator[None]:
    """Look at the standard streams and at `logging`, in this process, for one worker or several."""
    global _users  # noqa: PLW0603 - the standard streams are global too
    with contextlib.ExitStack() as installed:
        if not _users:
            _install(installed)
        _users += 1
        try:
            yield
        finally:
            _users -= 1


def _install(undo: contextlib.ExitStack) -> None:
    """Replace the standard streams, and the factory of records: a handler would keep `basicConfig` from its work."""
    make_record = logging.getLogRecordFactory()

    def make_and_add(*args: Any, **fields: Any) -> logging.LogRecord:
        record = make_record(*args, **fields)
        add_record(record)
        return record

    logging.setLogRecordFactory(make_and_add)
    undo.callback(logging.setLogRecordFactory, make_record)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None:  # a program without a console has none
            setattr(sys, name, cast("TextIO", CopyingStream(stream, name)))
            undo.callback(setattr, sys, name, stream)
