"""The sentence that a page shows once after an action: a cookie carries it over the redirect."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Final, Literal, NamedTuple, get_args

from noetl_broker.visible import visible

COOKIE: Final = "noetl_flash"
SECONDS: Final = 60
LONGEST: Final = 2_000  # bytes; a cookie may have 4 kB
Kind = Literal["ok", "info", "warn", "bad"]


class Flash(NamedTuple):
    """A sentence about what was done."""

    kind: Kind
    message: str


def written(flash: Flash) -> str:
    """The value of the cookie; a long sentence is cut."""
    message = visible(flash.message).encode()[:LONGEST].decode(errors="ignore")
    return base64.urlsafe_b64encode(json.dumps([flash.kind, message], ensure_ascii=False).encode()).decode()


def read(value: str | None) -> Flash | None:
    """The sentence in a cookie; None if this console did not write it."""
    if value is None:
        return None
    try:
        kind, message = json.loads(base64.b64decode(value.encode(), altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        return None
    return Flash(kind, message) if kind in get_args(Kind) and isinstance(message, str) else None
