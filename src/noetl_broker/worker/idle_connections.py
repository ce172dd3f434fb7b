"""Connections that wait for the next job, by target and credential, for a limited time.

A connection serves one job at a time. A later job gets it only with the same target and credential. Whoever gives one
back has removed what its job left on it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from typing import Any, Generic, Protocol, TypeVar

IDLE_SECONDS = 30.0
# A login that was changed on the server, or a name that moved to another address, is noticed by then.
LIFE_SECONDS = 600.0


class Keepable(Protocol):
    """A connection: when it was made (`time.monotonic`), whether it is closed, and how to close it at once."""

    opened_at: float

    def is_closed(self) -> bool:
        """Whether it can carry nothing more."""

    def terminate(self) -> None:
        """Close it without waiting."""


C = TypeVar("C", bound=Keepable)


class IdleConnections(Generic[C]):
    """At most `most` waiting connections. Each is closed after `idle_seconds`, and LIFE_SECONDS after it was made."""

    def __init__(self, *, most: int, idle_seconds: float = IDLE_SECONDS) -> None:
        self._most = most
        self._idle_seconds = idle_seconds
        self._waiting: dict[C, tuple[bytes, float]] = {}  # its key, and until when; the longest wait is first
        self._expiry: asyncio.TimerHandle | None = None
        self._closed = False
        self._salt = secrets.token_bytes(32)

    def key(self, *named: Any) -> bytes:
        """The key for a target and a credential, as JSON values. No password can be read from it."""
        text = json.dumps(named, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._salt).digest()

    def take(self, key: bytes) -> C | None:
        """The connection with this key that waited shortest; None if there is none. Closed ones are forgotten."""
        now = time.monotonic()
        for connection, (own, until) in reversed([*self._waiting.items()]):
            if own == key:
                if until > now and not connection.is_closed():
                    del self._waiting[connection]
                    return connection
                self._drop(connection)
        return None

    def give_back(self, key: bytes, connection: C) -> None:
        """Let a connection wait for the next job with this key. Beyond `most`, the longest waiting one is closed."""
        now = time.monotonic()
        until = min(now + self._idle_seconds, connection.opened_at + LIFE_SECONDS)
        if self._closed or until <= now:
            connection.terminate()
            return
        self._waiting[connection] = (key, until)
        while len(self._waiting) > self._most:
            self._drop(next(iter(self._waiting)))
        if self._expiry is None:
            self._expiry = asyncio.get_running_loop().call_later(self._idle_seconds, self._expire)

    def forget(self, key: bytes) -> None:
        """Close all that wait with this key: one of them was found dead."""
        for connection in [one for one, (own, _) in self._waiting.items() if own == key]:
            self._drop(connection)

    def clear(self) -> None:
        """Close all that wait."""
        for connection in list(self._waiting):
            self._drop(connection)

    def close(self) -> None:
        """Close all that wait. A connection that is given back later is closed at once."""
        self._closed = True
        if self._expiry is not None:
            self._expiry.cancel()
        self.clear()

    def _drop(self, connection: C) -> None:
        del self._waiting[connection]
        connection.terminate()

    def _expire(self) -> None:
        """Close the connections that have waited too long, and look again when the next one has."""
        now = time.monotonic()
        for connection in [one for one, (_, until) in self._waiting.items() if until <= now or one.is_closed()]:
            self._drop(connection)
        self._expiry = None
        if self._waiting:
            wait = min(until for _, until in self._waiting.values()) - now
            self._expiry = asyncio.get_running_loop().call_later(wait, self._expire)
