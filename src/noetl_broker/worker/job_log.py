"""The output and log of an attempt, until the database has it: in a bounded buffer, and without secrets.

The log of an attempt keeps its first and its last HALF_BYTES. If a step prints faster than its log is sent, the middle
is dropped here too, and counted. A step may print any bytes at any speed, and a search for secrets takes time. So only
the kept text is searched.
"""

from __future__ import annotations

import codecs
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from noetl_broker.broker.model.limits import MAX_LOG_BYTES
from noetl_broker.store.worker.jobs import Lease, LogPart
from noetl_broker.worker.errors import storable
from noetl_broker.worker.redaction import Redactor

HALF_BYTES = MAX_LOG_BYTES // 2
HELD_CHARACTERS = 4_000  # at most, of a line that has not ended
SKIPPED_CHARACTERS = 200  # at least, after a gap, of a line without an end

# Of both streams: stderr is what tools use for progress, and `logging` for all levels. So it says nothing about a line.
PRINTED_LEVEL = "info"


class Output:
    """One stream of an attempt, such as the stdout of its process: bytes become text without secrets."""

    def __init__(self, log: JobLog, level: str, redactor: Redactor) -> None:
        self.level = level
        self.has_ended = False
        self._log = log
        self._redactor = redactor
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = ""  # decoded and not taken
        self._skip = 0  # after a gap: characters to skip, if no line ends before
        self._is_new = False  # whether text came since the last `rest`
        self._ends_line = True

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held back."""
        return not self._text

    def write(self, data: bytes) -> None:
        """Add bytes; nothing after the end of the attempt. Any thread may call it."""
        self._log.write(self, data)

    def end(self) -> None:
        """The stream has ended: its last line is complete."""
        self.has_ended = True

    def read(self, data: bytes) -> tuple[str, int]:
        """The text that a part completes, and how many bytes were skipped. A line without an end is held back."""
        self._text += self._decoder.decode(data)
        self._is_new = True
        skipped = self._skip_rest() if self._skip else 0
        if self._skip:
            return "", 0
        end = self._text.rfind("\n") + 1
        if len(self._text) - end > HELD_CHARACTERS:
            end = len(self._text)
        return self._take(end), skipped

    def _skip_rest(self) -> int:
        """Skip what may be the rest of a secret, or the rest of a line; returns its bytes."""
        end = self._text.find("\n", 0, self._skip) + 1 or self._skip
        if end > len(self._text) - self._redactor.started_in(self._text):
            return 0
        _, end = self._redactor.across(self._text, end)
        skipped, self._text, self._skip = self._text[:end], self._text[end:], 0
        return len(skipped.encode("utf-8", "surrogateescape"))

    def rest(self, *, final: bool = False) -> str:
        """The text that is held back.

        Unless `final`: only if nothing came since the last call, and no secret may begin in it.
        """
        is_new, self._is_new = self._is_new, False
        if (is_new or self._skip) and not final:
            return ""
        if not final:
            return self._take(len(self._text))
        self._text = "" if self._skip else self._text + self._decoder.decode(b"", final=True)
        text, self._text = self._cleaned(self._text), ""
        end = "" if (self._ends_line and not text) or text.endswith("\n") else "\n"
        self._ends_line = True
        return text + end

    def cut(self) -> str:
        """The held-back text without the start of a secret: the next bytes are lost."""
        text, self._text = "" if self._skip else self._redactor.clean(self._text + "…", cut=True)[:-1], ""
        self._decoder.reset()
        self._skip = max(self._redactor.longest, SKIPPED_CHARACTERS)
        return self._plain(text)

    def _take(self, end: int) -> str:
        """The text up to `end` or before it: a secret is not divided, also where its end is still to come."""
        end = min(end, len(self._text) - self._redactor.started_in(self._text))
        end, _ = self._redactor.across(self._text, end)
        text, self._text = self._cleaned(self._text[:end]), self._text[end:]
        return text

    def _cleaned(self, text: str) -> str:
        return self._plain(self._redactor.clean(text))

    def _plain(self, text: str) -> str:
        if text:
            self._ends_line = text.endswith("\n")
        return str(storable(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")))


class Chunk(NamedTuple):
    """Bytes of one stream, as they came."""

    stream: Output
    data: bytearray


@dataclass(slots=True)
class Gap:
    """The text that was dropped since the last part was taken."""

    bytes: int = 0
    streams: list[Output] = field(default_factory=list)


class JobLog:
    """The log of one attempt. Any thread may write; one task takes and sends."""

    def __init__(self, lease: Lease, redactor: Redactor, wake: Callable[[JobLog], None] = lambda _: None) -> None:
        """`wake` is called when there is something to send, and nothing was before."""
        self.lease = lease
        self.unsent: list[LogPart] = []  # taken, and not in the database yet
        self.is_fast = False  # much came between the last two calls of `take`
        self.is_awake = False  # something is to be sent, now or when its line ends: from `wake` until `settle`
        self._is_closed = False
        self._redactor = redactor
        self._wake = wake
        self._lock = threading.Lock()
        self._head_room = HALF_BYTES
        self._head: list[Chunk] = []
        self._tail: deque[Chunk] = deque()
        self._tail_bytes = 0
        self._gap = Gap()
        self._streams: dict[Output, None] = {}  # in the order in which they began
        self._position = 0  # bytes before the next part, with what is missing

    def output(self, level: str) -> Output:
        """A new stream of this level. Any thread may call it."""
        return Output(self, level, self._redactor)

    def write(self, stream: Output, data: bytes) -> None:
        """Add bytes; nothing after the end of the attempt."""
        if not data:
            return
        with self._lock:
            if self._is_closed:
                return
            wakes, self.is_awake = not self.is_awake, True
            self._streams[stream] = None
            if self._head_room:
                _append(self._head, stream, data[: self._head_room])
                data, self._head_room = data[self._head_room :], max(self._head_room - len(data), 0)
            if data:
                _append(self._tail, stream, data)
                self._tail_bytes += len(data)
                self._drop()
        if wakes:
            self._wake(self)

    def _drop(self) -> None:
        """Keep the last HALF_BYTES of the tail."""
        while (excess := self._tail_bytes - HALF_BYTES) > 0:
            oldest = self._tail[0]
            size = min(excess, len(oldest.data))
            del oldest.data[:size]
            if not oldest.data:
                self._tail.popleft()
            self._tail_bytes -= size
            self._gap.bytes += size
            if oldest.stream not in self._gap.streams:
                self._gap.streams.append(oldest.stream)

    def take(self, *, final: bool = False) -> None:
        """Move what can be sent to `unsent`. `final`: all of it, and nothing is added any more."""
        with self._lock:
            self._is_closed = self._is_closed or final
            self.is_fast = self._tail_bytes > HALF_BYTES // 2
            head, tail, gap = self._head, self._tail, self._gap
            self._head, self._tail, self._gap, self._tail_bytes = [], deque(), Gap(), 0
            streams = [*self._streams]
        for chunk in head:
            self._read(chunk)
        for stream in gap.streams:
            self._add_part(stream.level, stream.cut())
        self._position += gap.bytes
        for chunk in tail:
            self._read(chunk)
        for stream in streams:
            ends = final or stream.has_ended
            self._add_part(stream.level, stream.rest(final=ends))
            if ends:
                del self._streams[stream]

    def settle(self) -> bool:
        """Whether nothing is left to send; the next write calls `wake` then."""
        with self._lock:
            left = self.unsent or self._head or self._tail or not all(stream.is_empty for stream in self._streams)
            self.is_awake = bool(left)
        return not left

    def _read(self, chunk: Chunk) -> None:
        text, skipped = chunk.stream.read(bytes(chunk.data))
        self._position += skipped
        self._add_part(chunk.stream.level, text)

    def _add_part(self, level: str, text: str) -> None:
        if not text:
            return
        size, last = len(text.encode()), self.unsent[-1] if self.unsent else None
        if last is not None and last.level == level and last.first_byte + len(last.message.encode()) == self._position:
            self.unsent[-1] = last._replace(message=last.message + text)
        else:
            self.unsent.append(LogPart(self.lease, level, text, self._position))
        self._position += size


def _append(chunks: list[Chunk] | deque[Chunk], stream: Output, data: bytes) -> None:
    if chunks and chunks[-1].stream is stream:
        chunks[-1].data.extend(data)
    else:
        chunks.append(Chunk(stream, bytearray(data)))
