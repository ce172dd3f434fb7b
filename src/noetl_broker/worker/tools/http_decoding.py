"""Decodes the content codings of an HTTP response in small portions, so that no response fills the memory.

A few bytes may inflate to gigabytes. The reader of the portions has its own limit. The output of one coding to the next
is limited here, because the next may produce nothing from it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from noetl_broker.worker.errors import FinalFault, ToolFault

PORTION_BYTES = 64 * 1024
ACCEPTED = "gzip, deflate"
KNOWN = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
MAX_CODINGS = 2
GZIP, ZLIB, RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS
HEADER_BYTES = 2


def too_large(most_bytes: int) -> FinalFault:
    """The fault of a response that is too large."""
    return FinalFault(f"answers with more than the limit of {most_bytes} bytes", kind="result_too_large")


class Inflater:
    """Decodes one coding. Raises ToolFault beyond `most_bytes`, and for invalid data."""

    def __init__(self, coding: str, most_bytes: int) -> None:
        self._coding = coding
        self._most_bytes = most_bytes
        self._room = most_bytes + PORTION_BYTES  # the reader of the portions meets its limit first
        self._stream = zlib.decompressobj(GZIP) if coding == "gzip" else None
        self._start = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode more data in portions. Data after the end of the coding is ignored."""
        if self._stream is None:
            data = self._start + data
            if len(data) < HEADER_BYTES:
                self._start = data
                return
            self._stream = zlib.decompressobj(ZLIB if has_zlib_header(data) else RAW)
        full = True  # zlib may have more output without more data
        while full and not self._stream.eof:
            try:
                part = self._stream.decompress(data, PORTION_BYTES)
            except zlib.error as error:
                message = f"answers with what cannot be read as {self._coding}: {error}"
                raise ToolFault(message, kind="http") from None
            data = self._stream.unconsumed_tail
            full = len(part) == PORTION_BYTES
            self._room -= len(part)
            if self._room < 0:
                raise too_large(self._most_bytes)
            if part:
                yield part


def has_zlib_header(data: bytes) -> bool:
    """Whether a `deflate` body is a zlib stream; some servers send it without a header."""
    return data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:HEADER_BYTES]) % 31 == 0


class Decoder:
    """Decodes all codings of a response, the last one first."""

    def __init__(self, header: str, most_bytes: int) -> None:
        """`header` is Content-Encoding. Raises ToolFault for an unknown coding, and for too many codings."""
        names = [name.strip().lower() for name in header.split(",")]
        names = [name for name in names if name not in ("", "identity")]
        if len(names) > MAX_CODINGS:
            message = f"answers in {len(names)} codings, one upon another; a worker reads {MAX_CODINGS} at most"
            raise FinalFault(message, kind="not_supported")
        unknown = next((name for name in names if name not in KNOWN), None)
        if unknown is not None:
            message = (
                f"answers in the coding {unknown!r:.40}, which a worker cannot read; it reads {ACCEPTED}: "
                "leave the header Accept-Encoding out of the step, or have the server send one of these"
            )
            raise FinalFault(message, kind="not_supported")
        self._stages = [Inflater(KNOWN[name], most_bytes) for name in reversed(names)]

    def feed(self, data: bytes, stage: int = 0) -> Iterator[bytes]:
        """Decode more data in portions."""
        if stage == len(self._stages):
            yield data
            return
        for part in self._stages[stage].feed(data):
            yield from self.feed(part, stage + 1)
