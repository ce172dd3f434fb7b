"""A proxy before a database that can refuse connections, like a server that is full or starting."""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from typing import Self

from tests.postgres import Database

# The messages of a refusing server by SQLSTATE. Without a SQLSTATE the proxy closes the connection silently.
MESSAGES = {
    "": "",
    "08006": "the connection to the server behind me was lost",
    "53300": "sorry, too many clients already",
    "57P01": "terminating connection due to administrator command",
    "57P02": "terminating connection because of crash of another server process",
    "57P03": "the database system is starting up",
    "58030": "could not open file: Input/output error",
}
FOR_EVER = 1 << 30


class RefusingProxy:
    """Passes connections on to a database, and refuses those that `refuse` chooses."""

    def __init__(self, database: Database) -> None:
        """Refuse nothing at first."""
        host, port = re.findall(r"@([^:/]+):(\d+)/", database.dsn)[0]
        self._target = (host, int(port))
        self._database = database
        self._tasks: set[asyncio.Task[None]] = set()
        self.refuse("", times=0)

    def refuse(self, state: str, *, times: int, after: int = 0, named: str = "") -> None:
        """Refuse `times` connections whose first message contains `named`, after passing `after` of them."""
        self._state, self._left, self._after, self._named = state, times, after, named.encode()
        self.refused = 0
        self.all_refused = asyncio.Event()  # all `times` refusals have happened

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
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close all connections, those in the making too."""
        for task in self._tasks:
            task.cancel()

    def _refuses(self, first: bytes) -> bool:
        if self._named not in first or not self._left:
            return False
        if self._after:
            self._after -= 1
            return False
        self._left -= 1
        self.refused += 1
        if not self._left:
            self.all_refused.set()
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
    fields = {"S": "FATAL", "V": "FATAL", "C": state, "M": MESSAGES.get(state, "go away")}
    body = b"".join(f"{key}{text}\0".encode() for key, text in fields.items()) + b"\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
