"""A standard error that never blocks: a thread writes it, so a stopped reader cannot stop a service.

Lines wait in a bounded queue. A line that does not fit, or cannot be written, is lost. The log reports the number of
lost lines when it can be written again.
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

MAX_QUEUE_BYTES = 4 << 20  # about 20,000 lines
FLUSH_SECONDS = 0.5  # for waiting lines at the end; less than a parent waits for its children


class NonBlockingWriter(io.RawIOBase):
    """Queues lines for a file descriptor; a thread writes each with one call."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()  # the first is being written
        self._size = 0
        self._lost = 0
        self._reported = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether the descriptor is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, line: ReadableBuffer, /) -> int:
        """Queue a line, or drop it when the queue is full."""
        data = bytes(line)
        with self._changed:
            if self._size + len(data) > MAX_QUEUE_BYTES:
                self._lost += 1
            else:
                self._waiting.append(data)
                self._size += len(data)
                self._changed.notify_all()
        return len(data)

    def flush_queue(self) -> None:
        """Wait a moment until all lines are written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, FLUSH_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                line = self._waiting[0]
            is_written = self._write(line)
            if is_written and len(self._waiting) == 1:
                self._report_lost()
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

    def _report_lost(self) -> None:
        """Log the number of lost lines if it has changed. That line may be lost too."""
        lost = self._lost
        if lost != self._reported:
            self._reported = lost
            log.warning("lines of the log are lost", lines=lost)


@contextlib.contextmanager
def non_blocking_stderr() -> Iterator[None]:
    """Make the standard error of this process non-blocking; if it is no file, nothing changes."""
    direct = sys.stderr
    try:
        descriptor = direct.fileno()
    except OSError:
        yield
        return
    writer = NonBlockingWriter(descriptor)
    sys.stderr = io.TextIOWrapper(writer, encoding=direct.encoding, errors=direct.errors, write_through=True)
    try:
        yield
    finally:
        writer.flush_queue()
        sys.stderr = direct


def end_at_once(code: int) -> NoReturn:
    """End the process at once, after writing the waiting log lines."""
    writer = getattr(sys.stderr, "buffer", None)
    if isinstance(writer, NonBlockingWriter):
        writer.flush_queue()
    os._exit(code)
