"""A proxy that fails silently: it drops everything, only notifications, or everything but notifications."""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from tests.postgres import Database

NOTIFICATION, GREETING = b"A", b"K"


class SilentProxy:
    """Passes connections on to a database; can drop or hold messages of the connections with one name."""

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
        host, port = re.findall(r"@([^:/]+):(\d+)/", database.dsn)[0]
        self._target = (host, int(port))
        self._database = database
        self._deaf = deaf
        self._greets_as = greets_as
        self._loses = loses
        self._holds = holds
        self.dropped = asyncio.Event()  # set when a request was dropped
        self.held = asyncio.Event()  # set when an answer was held
        self._answers = asyncio.Event()
        self._answers.set()
        self._connections: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        dsn = re.sub(r"@[^/]+/", f"@127.0.0.1:{port}/", self._database.dsn) + "?sslmode=disable"
        self.database = Database(name=self._database.name, dsn=dsn)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop_all(self, named: bytes) -> int:
        """Drop all further messages of the open connections with this name; gives their number."""
        return self._break(named, lambda connection: connection.dead)

    def drop_next(self, named: bytes) -> int:
        """Drop each open connection with this name from its next request on; gives their number.

        Answers that are on their way still pass: `dropped` is set by a request that was sent after this call.
        """
        return self._break(named, lambda connection: connection.dying)

    def close(self) -> None:
        """Refuse new connections."""
        self._server.close()

    def stop_answering(self) -> None:
        """Accept new connections, but pass nothing on until `answer_again`."""
        self._answers.clear()

    def answer_again(self) -> None:
        """Pass on the messages of new and waiting connections."""
        self._answers.set()

    def hold_answers(self, named: bytes) -> int:
        """Hold the answers on open connections with this name until `release_answers`; gives their number.

        Requests and notifications still pass.
        """
        return self._break(named, lambda connection: connection.holding)

    def release_answers(self) -> None:
        """Send all answers that were held, and hold no more."""
        self._holds = None
        for connection in self._connections:
            connection.holding.clear()
            if connection.held:
                connection.writer.write(b"".join(connection.held))
            connection.held.clear()

    def _break(self, named: bytes, part: Callable[[_Connection], asyncio.Event]) -> int:
        broken = [
            part(connection)
            for connection in self._connections
            if named in connection.first and not part(connection).is_set()
        ]
        for event in broken:
            event.set()
        return len(broken)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        ends = [writer]
        try:
            await self._answers.wait()
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            ends.append(server_writer)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                length = await reader.readexactly(4)
                first = length + await reader.readexactly(struct.unpack("!i", length)[0] - 4)
                server_writer.write(first)
                connection = _Connection(first, writer, deaf=self._deaf is not None and self._deaf in first)
                self._connections.append(connection)
                await asyncio.wait(
                    [
                        asyncio.create_task(self._pass_on(reader, server_writer, connection)),
                        asyncio.create_task(self._answer(server_reader, connection)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            for end in ends:
                end.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self._loses is not None and self._loses in data:
                    self._loses = None
                    connection.dead.set()
                if connection.dying.is_set():
                    connection.dead.set()
                if connection.dead.is_set():
                    self.dropped.set()
                else:
                    writer.write(data)

    async def _answer(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
                if head[:1] == GREETING and self._greets_as is not None:
                    body = struct.pack("!i", self._greets_as) + body[4:]
                if self._holds is not None and self._holds in body:
                    connection.holding.set()
                    self.held.set()
                connection.answer(head + body)


@dataclass(slots=True)
class _Connection:
    """One connection: its first message, and which fault it has."""

    first: bytes
    writer: asyncio.StreamWriter
    deaf: bool
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    dying: asyncio.Event = field(default_factory=asyncio.Event)
    holding: asyncio.Event = field(default_factory=asyncio.Event)
    held: list[bytes] = field(default_factory=list)

    def answer(self, message: bytes) -> None:
        """Send, hold or drop a message of the server."""
        is_notification = message[:1] == NOTIFICATION
        if self.dead.is_set() or (is_notification and self.deaf):
            return
        if self.holding.is_set() and not is_notification:
            self.held.append(message)
        else:
            self.writer.write(message)
