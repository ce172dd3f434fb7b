"""The secret parts of a connection string, and messages that must not show them."""

from __future__ import annotations

import re
from urllib.parse import unquote

INSTEAD = "the parts of the DSN cannot be told apart; percent-encode the special characters of user and password"
LEAST_CHARACTERS = 3  # a shorter piece of a password counts only where a message quotes it

_USER = re.compile(r"^(?:[\w+.-]*://)?(.*)@", re.DOTALL)
_KEYWORD = re.compile(r"(?:^|[\s?&;])(?:ssl)?password\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s&#]|&(?!\w+=))*)", re.IGNORECASE)
_SEPARATORS = re.compile(r"[/?#:@\[\]&=]")


def secret_parts(dsn: str | None) -> tuple[str, ...]:
    """Give the passwords in a connection string, as written and decoded; of a broken one, all that may be of one."""
    if not dsn:
        return ()
    found = [match.strip("'") for match in _KEYWORD.findall(dsn)]
    user = _USER.match(dsn)
    if user is not None:
        found.append(user[1].partition(":")[2])
    return tuple(dict.fromkeys(text for part in found for text in (part, unquote(part)) if text))


def without_secrets(message: str, dsn: str | None) -> str:
    """Give a message of the driver's, or another sentence where it shows a piece of a password in the DSN."""
    for part in secret_parts(dsn):
        for piece in (part, *_SEPARATORS.split(part)):
            shown = piece in message if len(piece) >= LEAST_CHARACTERS else f"'{piece}'" in message
            if piece and shown:
                return INSTEAD
    return message
