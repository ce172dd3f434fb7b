"""The cookies of pages: a secret that proves forms to be ours, and the sentence that a page shows once after an action.

A form has a digest of the secret. Another session has another one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import Final, Literal, NamedTuple, get_args

from noetl_broker.visible import visible

FORM: Final = "noetl_form"
FLASH: Final = "noetl_flash"
TOKEN_FIELD: Final = "csrf"  # noqa: S105 - the name of a field
FLASH_SECONDS: Final = 60
LONGEST: Final = 2_000  # bytes; a cookie may have 4 kB
Kind = Literal["ok", "info", "warn", "bad"]
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class Flash(NamedTuple):
    """A sentence about what was done, and its kind."""

    kind: str
    message: str


def written_flash(kind: Kind, message: str) -> str:
    """The value of the cookie; a long sentence is cut."""
    return base64.urlsafe_b64encode(f"{kind} {visible(message)}".encode()[:LONGEST]).decode()


def read_flash(value: str) -> Flash | None:
    """The sentence in a cookie; None if this console did not write it."""
    try:
        text = base64.b64decode(value, altchars=b"-_", validate=True).decode(errors="ignore")
    except ValueError:
        return None
    kind, _, message = text.partition(" ")
    return Flash(kind, message) if kind in get_args(Kind) else None


def new_secret() -> str:
    """A secret for the cookie of a browser."""
    return secrets.token_urlsafe(32)


def is_secret(value: str) -> bool:
    """Whether a cookie's value is one of our secrets."""
    return _SECRET.fullmatch(value) is not None


def token_of(secret: str, session: str | None) -> str:
    """The token for forms. It belongs to the browser's secret and to the session."""
    return hmac.new(secret.encode(), (session or "").encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def fits(token: str, secret: str, session: str | None) -> bool:
    """Whether a form's token is the one of this browser and session."""
    given = token.encode("utf-8", "surrogatepass")
    return is_secret(secret) and hmac.compare_digest(given, token_of(secret, session).encode())
