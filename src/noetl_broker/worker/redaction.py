"""Removes secrets from what a worker writes beside results: errors, logs, addresses.

The secrets of a worker are its variables for secrets and credentials, and variables with such names. Secrets that
templates read count, too. Each is replaced in any form: plain, URL, JSON, Python or base64, in upper or lower case.
Secrets of less than six characters are not replaced: that would spoil ordinary words.

Texts are redacted before they are cut, because half a secret is not recognized.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from noetl_broker.store.connect.dsn import secret_parts
from noetl_broker.worker.environment import CREDENTIAL_PREFIX, HIDDEN_NAMES, SECRET_PREFIX

REPLACEMENT = "[secret]"
MIN_CHARS = 6
MIN_START_CHARS = 3  # of the start of a secret before dots
DOTS = re.compile(r"(\.\.\.|…)")

# Names of variables that hold a secret, whatever program reads them.
SECRET_NAMES = re.compile(
    r"PASSW|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|PRIVATE_?KEY|API_?KEY|ACCESS_?KEY|DSN|DATABASE_URL", re.IGNORECASE
)
# Fields of a credential that are not secret.
OPEN_FIELDS = frozenset(
    {"type", "tool", "kind", "provider", "service", "source", "name", "header", "scope", "region", "role", "account"}
    | {"host", "port", "user", "username", "database", "dbname", "db", "schema", "warehouse", "endpoint", "url_style"}
    | {f"{prefix}_{word}" for prefix in ("db", "pg") for word in ("host", "port", "user", "name", "db", "schema")}
)


class Redactor:
    """The secrets of one worker. It learns more while it runs."""

    def __init__(self, environment: Mapping[str, str], dsn: str | None) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._add(_secrets_in(environment))
        self._add(secret_parts(dsn))

    def learn(self, secret: str) -> str:
        """Add a secret that a template read, and return it."""
        if secret not in self._known:
            self._add((secret,))
        return secret

    @property
    def longest(self) -> int:
        """The length of the longest form of a secret."""
        return max(map(len, self._known), default=0)

    def clean(self, value: Any, *, cut: bool = False) -> Any:
        """A JSON value with the secrets in its texts replaced.

        `cut`: others may have cut these texts; the start of a secret before dots is replaced too.
        """
        if isinstance(value, str):
            text = value if self._pattern is None else self._pattern.sub(REPLACEMENT, value)
            return self._without_starts(text) if cut else text
        if isinstance(value, Mapping):
            return {key: self.clean(item, cut=cut) for key, item in value.items()}
        return [self.clean(item, cut=cut) for item in value] if isinstance(value, list) else value

    def known_in(self, text: str) -> list[str]:
        """The secrets that a text shows, in the form in which it shows them."""
        return [] if self._pattern is None else self._pattern.findall(text)

    def across(self, text: str, position: int) -> tuple[int, int]:
        """The span of the secret that covers a position of a text; the position twice if there is none."""
        found = () if self._pattern is None else self._pattern.finditer(text)
        return next((one.span() for one in found if one.start() < position < one.end()), (position, position))

    def started_in(self, text: str) -> int:
        """Count the characters at the end of a text that may be the start of a secret."""
        return self._start_at_the_end_of(text, least=1)

    def end_of(self, text: str, most: int) -> str:
        """The last `most` characters of a text, redacted. A secret that begins before them is found."""
        start, _ = self.across(text, max(len(text) - most, 0))
        return str(self.clean(text[start:], cut=True))

    def _without_starts(self, text: str) -> str:
        *before, last = DOTS.split(text)
        for index in range(0, len(before), 2):
            if size := self._start_at_the_end_of(before[index]):
                before[index] = before[index][:-size] + REPLACEMENT
        return "".join((*before, last))

    def _start_at_the_end_of(self, text: str, *, least: int = MIN_START_CHARS) -> int:
        """Give the length of the longest start of a secret at the end of a text; 0 if it is below `least`."""
        longest, low = 0, text.lower()
        for form in map(str.lower, self._known):
            head = form[:least]
            at = low.find(head, max(len(low) - len(form), 0))
            while at >= 0 and not form.startswith(low[at:]):
                at = low.find(head, at + 1)
            if at >= 0:
                longest = max(longest, len(low) - at)
        return longest

    def _add(self, secrets: Iterable[str]) -> None:
        before = len(self._known)
        self._known.update(form for secret in secrets for form in _forms(secret) if len(form) >= MIN_CHARS)
        if len(self._known) > before:
            longest_first = sorted(self._known, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)


def _secrets_in(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        if name.startswith(CREDENTIAL_PREFIX):
            yield from _secrets_of(value)
        elif name.startswith(SECRET_PREFIX) or name in HIDDEN_NAMES or SECRET_NAMES.search(name):
            yield value
            yield from secret_parts(value)


def _secrets_of(credential: str) -> Iterator[str]:
    """The secrets in a credential: its whole text, or the fields of its mapping that are not open."""
    try:
        fields = json.loads(credential)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        yield credential
        yield from secret_parts(credential)
        return
    user = next((fields[key] for key in ("user", "username") if isinstance(fields.get(key), str)), None)
    for text in _texts({key: value for key, value in fields.items() if str(key).lower() not in OPEN_FIELDS}):
        yield text
        yield from secret_parts(text)
        if user is not None:
            yield base64.b64encode(f"{user}:{text}".encode()).decode()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(item)


def _forms(secret: str) -> Iterator[str]:
    """The forms in which a secret may be written; also of each line of a secret with several lines."""
    for text in (secret, *(line.strip() for line in secret.splitlines()[:1_000])):
        raw = _bytes_of(text)
        yield from (text, quote(raw, safe=""), quote_plus(raw), json.dumps(text)[1:-1], repr(text)[1:-1])
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield base64.b64encode(raw).decode().rstrip("=")


def _bytes_of(text: str) -> bytes:
    """The bytes of a text with surrogates too: an environment may hold any bytes, and JSON lone surrogates."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
