"""A proxy that fails silently: it drops everything, only notifications, or everything but notifications."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

from tests.chaos.proxy import Ends, Proxied, Proxy, read_message
from tests.postgres import Database

NOTIFICATION, GREETING = b"A", b"K"


class SilentProxy(Proxy):
    """Can drop or hold messages of the connections with one name."""

    def __init__(
        self,
        database: Database,
        *,
        deaf: bytes | None = None,
        loses: bytes | None = None,
        holds: bytes | None = None,
        greets_as: int | None = None,
    ) -> None:
        """`deaf`: connections whose first message contains this get no notifications.

        `loses`: the first connection that sends this gets nothing any more. `holds`: an answer that contains this, and
        later ones of its connection, wait for `release_answers`. `greets_as`: replaces the server's process id in the
        greeting, as a pooler does.
        """
        super().__init__(database)
        self.deaf, self.loses, self.holds, self.greets_as = deaf, loses, holds, greets_as
        self.dropped = asyncio.Event()  # set when a request was dropped
        self.held = asyncio.Event()  # set when an answer was held
        self._answers = asyncio.Event()
        self._answers.set()
        self._connections: list[_Silent] = []

    def drop_all(self, named: bytes) -> int:
        """Drop all further messages of the open connections with this name; gives their number."""
        return self._break(named, lambda connection: connection.dead)

    def drop_next(self, named: bytes) -> int:
        """Drop each open connection with this name from its next request on; gives their number.

        Answers that are on their way still pass: `dropped` is set by a request that was sent after this call.
        """
        return self._break(named, lambda connection: connection.dying)

    def hold_answers(self, named: bytes) -> int:
        """Hold the answers on open connections with this name until `release_answers`; gives their number.

        Requests and notifications still pass.
        """
        return self._break(named, lambda connection: connection.holding)

    def release_answers(self) -> None:
        """Send all answers that were held, and hold no more."""
        self.holds = None
        for connection in self._connections:
            connection.holding.clear()
            connection.client.write(b"".join(connection.held))
            connection.held.clear()

    def stop_answering(self) -> None:
        """Accept new connections, but pass nothing on until `answer_again`."""
        self._answers.clear()

    def answer_again(self) -> None:
        """Pass on the messages of new and waiting connections."""
        self._answers.set()

    async def admits(self, first: bytes, client: asyncio.StreamWriter) -> bool:
        """Let it wait for `answer_again`."""
        await self._answers.wait()
        return await super().admits(first, client)

    def connection(self, first: bytes, client: Ends, server: Ends) -> Proxied:
        """Remember it: later faults find it by its first message."""
        self._connections.append(_Silent(self, first, client, server))
        return self._connections[-1]

    def _break(self, named: bytes, part: Callable[[_Silent], asyncio.Event]) -> int:
        parts = [part(connection) for connection in self._connections if named in connection.first]
        broken = [event for event in parts if not event.is_set()]
        for event in broken:
            event.set()
        return len(broken)


class _Silent(Proxied):
    """One connection, and which fault it has."""

    def __init__(self, proxy: SilentProxy, first: bytes, client: Ends, server: Ends) -> None:
        super().__init__(first, client, server)
        self._proxy = proxy
        self._deaf = proxy.deaf is not None and proxy.deaf in first
        self.dead, self.dying, self.holding = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.held: list[bytes] = []

    async def ask(self) -> None:
        """Pass on requests until they are dropped."""
        proxy = self._proxy
        while data := await self.client_reader.read(65_536):
            if proxy.loses is not None and proxy.loses in data:
                proxy.loses = None
                self.dead.set()
            if self.dying.is_set():
                self.dead.set()
            if self.dead.is_set():
                proxy.dropped.set()
            else:
                self.server.write(data)

    async def answer(self) -> None:
        """Pass on, hold or drop each message of the server."""
        proxy = self._proxy
        while True:
            kind, message = await read_message(self.server_reader)
            if kind == GREETING and proxy.greets_as is not None:
                message = message[:5] + struct.pack("!i", proxy.greets_as) + message[9:]
            if proxy.holds is not None and proxy.holds in message:
                self.holding.set()
                proxy.held.set()
            if self.dead.is_set() or (kind == NOTIFICATION and self._deaf):
                continue
            if self.holding.is_set() and kind != NOTIFICATION:
                self.held.append(message)
            else:
                self.client.write(message)
