"""A proxy between the program and its database; each kind of fault is a subclass of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from typing import Self

from tests.postgres import Database

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxied:
    """One connection: the first message of its client, and where each side reads and writes."""

    def __init__(self, first: bytes, client: Ends, server: Ends) -> None:
        self.first = first
        self.client_reader, self.client = client
        self.server_reader, self.server = server

    async def ask(self) -> None:
        """Pass on what the client sends."""
        while data := await self.client_reader.read(65_536):
            self.server.write(data)
            await self.server.drain()

    async def answer(self) -> None:
        """Pass on what the server sends."""
        while data := await self.server_reader.read(65_536):
            self.client.write(data)
            await self.client.drain()


class Proxy:
    """Passes connections on to a database; its own `database` leads here. A connection ends when one side closes it."""

    def __init__(self, database: Database) -> None:
        host, port = re.findall(r"@([^:/]+):(\d+)/", database.dsn)[0]
        self._target = (host, int(port))
        self._behind = database
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        dsn = re.sub(r"@[^/]+/", f"@127.0.0.1:{port}/", self._behind.dsn) + "?sslmode=disable"
        self.database = Database(name=self._behind.name, dsn=dsn)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close everything."""
        self.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # each transport closes its socket in the next round of the loop

    def close(self) -> None:
        """Refuse new connections."""
        self._server.close()

    def cut(self) -> None:
        """End all connections, those in the making too."""
        for task in self._tasks:
            task.cancel()

    async def admits(self, first: bytes, client: asyncio.StreamWriter) -> bool:
        """Tell whether a client with this first message gets a connection; it may be answered here."""
        del first, client
        return True

    def connection(self, first: bytes, client: Ends, server: Ends) -> Proxied:
        """Make the connection that carries the fault."""
        return Proxied(first, client, server)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        ends, ways = [writer], list[asyncio.Task[None]]()
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                length = await reader.readexactly(4)
                first = length + await reader.readexactly(struct.unpack("!i", length)[0] - 4)
                if not await self.admits(first, writer):
                    return
                server = await asyncio.open_connection(*self._target)
                ends.append(server[1])
                self._writers.add(server[1])
                connection = self.connection(first, (reader, writer), server)
                server[1].write(connection.first)
                ways += [asyncio.create_task(way) for way in (connection.ask(), connection.answer())]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in ends:
                if task.cancelling():
                    end.transport.abort()
                else:
                    end.close()


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read a message of the protocol; gives its kind and all of it."""
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
