"""Decodes the content codings of an HTTP response, up to a limit: a few bytes may inflate to gigabytes."""

from __future__ import annotations

import zlib

from noetl_broker.worker.errors import FinalFault, ToolFault

ACCEPTED = "gzip, deflate"
KNOWN = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
MAX_CODINGS = 2
GROWTH_BYTES = 64 * 1024  # that a coding may add to data which it cannot make smaller
GZIP, ZLIB, RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS


def decoded(body: bytes, header: str, most_bytes: int, *, cut: bool) -> bytes:
    """A body without its codings; `header` is Content-Encoding. A larger one is a fault, unless `cut`.

    Raises ToolFault for an unknown coding, for too many codings, and for invalid data.
    """
    for coding in _codings_in(header):
        if len(body) > most_bytes + GROWTH_BYTES:
            raise _too_large(most_bytes)
        body = _inflated(body, coding, most_bytes + GROWTH_BYTES + 1)
    if len(body) > most_bytes and not cut:
        raise _too_large(most_bytes)
    return body


def _too_large(most_bytes: int) -> FinalFault:
    return FinalFault(f"answers with more than the limit of {most_bytes} bytes", kind="result_too_large")


def _codings_in(header: str) -> list[str]:
    """The codings of a response, the outer one first."""
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
    return [KNOWN[name] for name in reversed(names)]


def _inflated(data: bytes, coding: str, most_bytes: int) -> bytes:
    """The first `most_bytes` of data in one coding. Data after its end is ignored."""
    window = GZIP if coding == "gzip" else ZLIB if not data or _has_zlib_header(data) else RAW
    try:
        return zlib.decompressobj(window).decompress(data, most_bytes)
    except zlib.error as error:
        raise ToolFault(f"answers with what cannot be read as {coding}: {error}", kind="http") from None


def _has_zlib_header(data: bytes) -> bool:
    """Whether a `deflate` body is a zlib stream; some servers send it without a header."""
    return data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2]) % 31 == 0
