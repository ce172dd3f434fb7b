"""What a service says on standard error goes through a thread: a reader that stops, or a full disk, stops no service.

Whoever writes puts a line into a queue with a bound. What finds no room there, or cannot be written, is lost; the log
says how much that was as soon as it can be written again.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import structlog

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

log = structlog.get_logger(__name__)

MOST_WAITING = 4 << 20  # bytes: some 20,000 lines
LAST_SECONDS = 0.5  # for what still waits at the end; less than a parent gives its children


class Sink(io.RawIOBase):
    """Takes lines for a descriptor; each is one write of a thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()  # the first is being written
        self._size = 0
        self._lost = 0
        self._told = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._serve, name="log", daemon=True).start()

    def writable(self) -> bool:
        """It is for nothing else."""
        return True

    def fileno(self) -> int:
        """Give what is written to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Say whether a person reads."""
        return os.isatty(self._descriptor)

    def write(self, line: ReadableBuffer, /) -> int:
        """Take a line, or let it go, at once."""
        data = bytes(line)
        with self._changed:
            if self._size + len(data) > MOST_WAITING:
                self._lost += 1
            else:
                self._waiting.append(data)
                self._size += len(data)
                self._changed.notify_all()
        return len(data)

    def finish(self) -> None:
        """Wait until all is written, but not for long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, LAST_SECONDS)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                line = self._waiting[0]
            is_written = self._write(line)
            if is_written and len(self._waiting) == 1:
                self._tell()
            with self._changed:
                self._waiting.popleft()
                self._size -= len(line)
                self._lost += not is_written
                self._changed.notify_all()

    def _write(self, line: bytes) -> bool:
        with contextlib.suppress(OSError):
            while line:
                line = line[os.write(self._descriptor, line) :]
        return not line

    def _tell(self) -> None:
        """Say how many lines are lost, where that is news; the word of it is a line that may be lost itself."""
        lost = self._lost
        if lost != self._told:
            self._told = lost
            log.warning("lines of the log are lost", lines=lost)


@contextlib.contextmanager
def never_waiting() -> Iterator[None]:
    """Let nobody in this process wait for who reads its standard error; where that is no file, nothing changes."""
    direct = sys.stderr
    try:
        descriptor = direct.fileno()
    except OSError:
        yield
        return
    sink = Sink(descriptor)
    sys.stderr = io.TextIOWrapper(sink, encoding=direct.encoding, errors=direct.errors, write_through=True)
    try:
        yield
    finally:
        sink.finish()
        sys.stderr = direct


def end_at_once(code: int) -> NoReturn:
    """End the process with its last lines, and without anything else."""
    sink = getattr(sys.stderr, "buffer", None)
    if isinstance(sink, Sink):
        sink.finish()
    os._exit(code)
