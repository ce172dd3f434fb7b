"""Keeps secrets out of what a worker tells beside the results of steps: errors, logs, the address that answered.

A worker knows its secrets: the variables that hold secrets and credentials, those whose names say so, and what a
template read as a secret. Each is taken out of a text wherever it stands, as it is or as URLs, JSON, Python and base64
write it, in small or capital letters (a host is told in small ones). Short ones are not looked for: to take `pg` out of
every message would help nobody.

What is cut is cleaned before that, or cut where no secret stands across: of half a secret nobody knows what it is.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from noetl_broker.store.dsn import secret_parts
from noetl_broker.worker.environment import CREDENTIAL_PREFIX, HIDDEN_NAMES, SECRET_PREFIX

INSTEAD = "[secret]"
LEAST_CHARACTERS = 6
LEAST_OF_A_START = 3  # characters, where dots say that the rest was cut off
DOTS = re.compile(r"(\.\.\.|…)")

# Variables that hold a secret by their name, whoever reads them.
SECRET_NAMES = re.compile(
    r"PASSW|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|PRIVATE_?KEY|API_?KEY|ACCESS_?KEY|DSN|DATABASE_URL", re.IGNORECASE
)
# What a stored credential says beside its secrets.
OPEN_FIELDS = frozenset(
    {"type", "tool", "kind", "provider", "service", "source", "name", "header", "scope", "region", "role", "account"}
    | {"host", "port", "user", "username", "database", "dbname", "db", "schema", "warehouse", "endpoint", "url_style"}
    | {f"{prefix}_{word}" for prefix in ("db", "pg") for word in ("host", "port", "user", "name", "db", "schema")}
)


class Redactor:
    """The secrets of one worker; more are learned while it runs."""

    def __init__(self, environment: Mapping[str, str], dsn: str | None) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._add(_secrets_in(environment))
        self._add(secret_parts(dsn))

    def learn(self, secret: str) -> str:
        """Remember a secret that a template has read, and give it back."""
        if secret not in self._known:
            self._add((secret,))
        return secret

    @property
    def longest(self) -> int:
        """The characters of the longest secret, as whoever writes it at the greatest length."""
        return max(map(len, self._known), default=0)

    def clean(self, value: Any, *, cut: bool = False) -> Any:
        """Give a JSON value with each secret in its texts replaced.

        `cut`: a server or a library may have cut what it quotes there; the start of a secret before dots goes too.
        """
        if isinstance(value, str):
            text = value if self._pattern is None else self._pattern.sub(INSTEAD, value)
            return self._without_starts(text) if cut else text
        if isinstance(value, Mapping):
            return {key: self.clean(item, cut=cut) for key, item in value.items()}
        return [self.clean(item, cut=cut) for item in value] if isinstance(value, list) else value

    def across(self, text: str, place: int) -> tuple[int, int]:
        """Tell where the secret begins and ends that stands across a place of a text; the place twice, if none does."""
        found = () if self._pattern is None else self._pattern.finditer(text)
        return next((one.span() for one in found if one.start() < place < one.end()), (place, place))

    def end_of(self, text: str, most: int) -> str:
        """Give the last so many characters of a text cleaned; a secret that begins before them is there as a whole."""
        start, _ = self.across(text, max(len(text) - most, 0))
        return str(self.clean(text[start:], cut=True))

    def _without_starts(self, text: str) -> str:
        *before, last = DOTS.split(text)
        for place in range(0, len(before), 2):
            if size := self._start_at_the_end_of(before[place]):
                before[place] = before[place][:-size] + INSTEAD
        return "".join((*before, last))

    def _start_at_the_end_of(self, text: str) -> int:
        """Give the length of the longest start of a secret with which a text ends."""
        longest, low = 0, text.lower()
        for form in map(str.lower, self._known):
            head = form[:LEAST_OF_A_START]
            at = low.find(head, max(len(low) - len(form), 0))
            while at >= 0 and not form.startswith(low[at:]):
                at = low.find(head, at + 1)
            if at >= 0:
                longest = max(longest, len(low) - at)
        return longest

    def _add(self, secrets: Iterable[str]) -> None:
        before = len(self._known)
        self._known.update(form for secret in secrets for form in _forms(secret) if len(form) >= LEAST_CHARACTERS)
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
    """Give the secrets in a credential: all of one text; of a mapping, its fields but those that are open."""
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
    """Give the ways in which a secret may be written; of one with several lines, each line too."""
    for text in (secret, *(line.strip() for line in secret.splitlines()[:1_000])):
        raw = _bytes_of(text)
        yield from (text, quote(raw, safe=""), quote_plus(raw), json.dumps(text)[1:-1], repr(text)[1:-1])
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield base64.b64encode(raw).decode().rstrip("=")


def _bytes_of(text: str) -> bytes:
    """Give the bytes of a text, of one that is none too: an environment holds any, and JSON halves of characters."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
