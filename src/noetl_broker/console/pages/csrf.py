"""Tokens that prove that a form is on a page of ours: a cookie has a secret, the form a digest of it."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Final

COOKIE: Final = "noetl_form"
FIELD: Final = "csrf"
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


def new_secret() -> str:
    """A secret for the cookie of a browser."""
    return secrets.token_urlsafe(32)


def is_secret(value: str | None) -> bool:
    """Whether a cookie's value is one of our secrets."""
    return value is not None and _SECRET.fullmatch(value) is not None


def token_of(secret: str, session: str | None) -> str:
    """The token for forms. It belongs to the browser's secret and to the session: another session has another one."""
    return hmac.new(secret.encode(), (session or "").encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def fits(token: str, secret: str | None, session: str | None) -> bool:
    """Whether a form's token is the one of this browser and session."""
    if secret is None or not is_secret(secret):
        return False
    return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), token_of(secret, session).encode())
