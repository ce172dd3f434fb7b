"""A door before a database that can be kept shut: who knocks is refused, as a server does that is full or starts up."""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from typing import Self

from tests.postgres import Database

# What a server says at its door, by SQLSTATE. Without one nothing is said: the connection is closed.
WORDS = {
    "": "",
    "08006": "the connection to the server behind me was lost",
    "53300": "sorry, too many clients already",
    "57P01": "terminating connection due to administrator command",
    "57P02": "terminating connection because of crash of another server process",
    "57P03": "the database system is starting up",
    "58030": "could not open file: Input/output error",
}
FOR_EVER = 1 << 30


class Door:
    """Lets connections through to a database, but those that it is told to refuse."""

    def __init__(self, database: Database) -> None:
        """Open to everybody."""
        host, port = re.findall(r"@([^:/]+):(\d+)/", database.dsn)[0]
        self._target = (host, int(port))
        self._database = database
        self._tasks: set[asyncio.Task[None]] = set()
        self.refuse("", times=0)

    def refuse(self, state: str, *, times: int, after: int = 0, named: str = "") -> None:
        """Refuse so many connections whose first message holds this name, after so many were let through."""
        self._state, self._left, self._after, self._named = state, times, after, named.encode()
        self.refused = 0
        self.turned_away = asyncio.Event()  # all that were to be refused have been

    async def __aenter__(self) -> Self:
        """Open a port of its own."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        dsn = re.sub(r"@[^/]+/", f"@127.0.0.1:{port}/", self._database.dsn) + "?sslmode=disable"
        self.database = Database(name=self._database.name, dsn=dsn)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave nothing open."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _refuses(self, first: bytes) -> bool:
        if self._named not in first or not self._left:
            return False
        if self._after:
            self._after -= 1
            return False
        self._left -= 1
        self.refused += 1
        if not self._left:
            self.turned_away.set()
        return True

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            length = await reader.readexactly(4)
            first = length + await reader.readexactly(struct.unpack("!i", length)[0] - 4)
            if self._refuses(first):
                writer.write(_refusal(self._state))
                await writer.drain()
                return
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            with contextlib.closing(server_writer):
                server_writer.write(first)
                ways = [
                    asyncio.create_task(_pass_on(reader, server_writer)),
                    asyncio.create_task(_pass_on(server_reader, writer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()


def _refusal(state: str) -> bytes:
    if not state:
        return b""
    fields = {"S": "FATAL", "V": "FATAL", "C": state, "M": WORDS.get(state, "go away")}
    body = b"".join(f"{key}{text}\0".encode() for key, text in fields.items()) + b"\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
