"""Undoes the content codings of an http answer in small portions, so that no answer fills the memory.

A few bytes may inflate to gigabytes. Whoever reads the portions stops at a limit of its own; what one coding gives to
the next is limited here, because the next may make nothing of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PORTION_BYTES = 64 * 1024
ACCEPTED = "gzip, deflate"
KNOWN = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
MOST_CODINGS = 2
GZIP, ZLIB, RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS
HEADER_BYTES = 2


class CodingFault(Exception):
    """An answer cannot be decoded; `kind` and `retryable` are those of the step's error."""

    def __init__(self, message: str, *, kind: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable


def too_large(most_bytes: int) -> CodingFault:
    """Tell that an answer is larger than it may be."""
    return CodingFault(f"answers with more than the limit of {most_bytes} bytes", kind="result_too_large")


class Inflater:
    """Undoes one coding; raises CodingFault some way past `most_bytes`, and for data that is not in the coding."""

    def __init__(self, coding: str, most_bytes: int) -> None:
        self._coding = coding
        self._most_bytes = most_bytes
        self._room = most_bytes + PORTION_BYTES  # whoever reads the portions comes to the limit first
        self._stream = zlib.decompressobj(GZIP) if coding == "gzip" else None
        self._start = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give what this makes of more data, in portions; what follows the end of the coding is ignored."""
        if self._stream is None:
            data = self._start + data
            if len(data) < HEADER_BYTES:
                self._start = data
                return
            self._stream = zlib.decompressobj(ZLIB if has_zlib_header(data) else RAW)
        full = True  # zlib may hold more than it gave, also without more data
        while full and not self._stream.eof:
            try:
                part = self._stream.decompress(data, PORTION_BYTES)
            except zlib.error as error:
                message = f"answers with what cannot be read as {self._coding}: {error}"
                raise CodingFault(message, kind="http", retryable=True) from None
            data = self._stream.unconsumed_tail
            full = len(part) == PORTION_BYTES
            self._room -= len(part)
            if self._room < 0:
                raise too_large(self._most_bytes)
            if part:
                yield part


def has_zlib_header(data: bytes) -> bool:
    """Tell whether `deflate` means a zlib stream, as it should, or one without a header, as some servers send."""
    return data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:HEADER_BYTES]) % 31 == 0


class Decoder:
    """Undoes all codings of an answer, the last one first."""

    def __init__(self, header: str, most_bytes: int) -> None:
        """`header` is Content-Encoding; raises CodingFault for a coding that is unknown, and for too many of them."""
        names = [name.strip().lower() for name in header.split(",")]
        names = [name for name in names if name not in ("", "identity")]
        if len(names) > MOST_CODINGS:
            message = f"answers in {len(names)} codings, one upon another; a worker reads {MOST_CODINGS} at most"
            raise CodingFault(message, kind="not_supported")
        unknown = next((name for name in names if name not in KNOWN), None)
        if unknown is not None:
            message = (
                f"answers in the coding {unknown!r:.40}, which a worker cannot read; it reads {ACCEPTED}: "
                "leave the header Accept-Encoding out of the step, or have the server send one of these"
            )
            raise CodingFault(message, kind="not_supported")
        self._stages = [Inflater(KNOWN[name], most_bytes) for name in reversed(names)]

    def feed(self, data: bytes, stage: int = 0) -> Iterator[bytes]:
        """Give what all codings make of more data, in portions."""
        if stage == len(self._stages):
            yield data
            return
        for part in self._stages[stage].feed(data):
            yield from self.feed(part, stage + 1)
