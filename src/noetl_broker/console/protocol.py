"""HTTP connections with bounds on their time and number. The server has a bound for idle connections alone."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS: Final = 1_000
SHARE_OF_DESCRIPTORS: Final = 2  # connections use at most half of the file descriptors


def _most_connections() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if descriptors < 0 else max(1, min(MOST_CONNECTIONS, descriptors // SHARE_OF_DESCRIPTORS))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Limits of a connection: seconds for the head and the body of a request, between two, and to read an answer.

    Behind a proxy, all clients have one address: so `connections_of_address` is large.
    """

    head_seconds: float = 10
    body_seconds: float = 30
    idle_seconds: int = 10
    stalled_seconds: float = 30
    connections: int = field(default_factory=_most_connections)
    connections_of_address: int = 400


class BoundedProtocol(H11Protocol):
    """A connection that is closed when its client takes too long, or when others need its place.

    The connection that has waited longest for its client goes first. A connection whose request is answered never goes.
    """

    limits: ClassVar[ConnectionLimits]

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.waits_since: float | None = self.loop.time()  # for its client to send a whole request
        self._state: Any = h11.IDLE  # of the request, when it was last looked at
        self._is_head_begun = False
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as its base
        """Wait for a request, and make room for this connection."""
        super().connection_made(transport)
        self._reading = self._close_after(self.limits.head_seconds)
        everybody: list[Any] = [*self.connections]
        own = [each for each in everybody if each.client and self.client and each.client[0] == self.client[0]]
        if len(own) > self.limits.connections_of_address:
            if not self._close_oldest(own):
                self.limit_concurrency = 0  # its requests get 503
        elif len(everybody) > self.limits.connections:
            self._close_oldest(everybody)

    def _close_oldest(self, crowd: list[Any]) -> bool:
        waiting = [each for each in crowd if each is not self and each.waits_since is not None]
        if waiting:
            oldest = min(waiting, key=lambda each: each.waits_since)
            self.connections.discard(oldest)  # at once; it learns it later
            oldest.transport.abort()
        return bool(waiting)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what waits for this connection."""
        super().connection_lost(exc)
        for timer in (self._reading, self._writing):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Go on with a request; its first byte begins the time for its head."""
        if self._state is h11.IDLE and not self._is_head_begun:
            self._is_head_begun = True
            self._set_reading(self.limits.head_seconds)
        super().data_received(data)

    def handle_events(self) -> None:
        """Go on with what has come. Begin the time for what the client must do next, where that has changed."""
        super().handle_events()
        state, before = self.conn.their_state, self._state
        if state is before or self.transport.is_closing():
            return
        self._state = state
        if state is h11.SEND_BODY:
            self._set_reading(self.limits.body_seconds)
        elif state is h11.IDLE:
            self._is_head_begun = False
            self.waits_since = self.loop.time()
            self._set_reading(self.limits.idle_seconds)
        else:  # the request is complete
            self.waits_since = None
            self._set_reading(None)

    def pause_writing(self) -> None:
        """Wait for the client to read what it was sent."""
        super().pause_writing()
        self._writing = self._close_after(self.limits.stalled_seconds)

    def resume_writing(self) -> None:
        """Send on."""
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()

    def _set_reading(self, seconds: float | None) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading = None if seconds is None else self._close_after(seconds)

    def _close_after(self, seconds: float) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, self.transport.abort)
