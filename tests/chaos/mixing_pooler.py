"""A transaction pooler without support for prepared statements: each transaction runs on any free session.

As PgBouncer does with `pool_mode = transaction` and `max_prepared_statements = 0`, but it needs no installing.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from typing import Self

from tests.postgres import Database

ASKS_FOR_PASSWORD = (3, 5, 10, 11)  # kinds of the server's `R` message that the other side answers
NO_PROCESS = 1 << 30  # larger than every process id


class MixingPooler:
    """Passes connections on to a database. A transaction gets the session that became free last."""

    def __init__(self, database: Database) -> None:
        """Start without sessions."""
        host, port = re.findall(r"@([^:/]+):(\d+)/", database.dsn)[0]
        self._target = (host, int(port))
        self._database = database
        self._free: list[_Session] = []
        self._came_free = asyncio.Condition()
        self._writers: list[asyncio.StreamWriter] = []
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
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            await self._give_back(await self._greet(reader, writer))
            while True:
                await self._carry_transaction(reader, writer)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Session:
        """Log a client in on a new session; it gets a process id that no process has."""
        session = _Session(*await asyncio.open_connection(*self._target))
        self._writers.append(session.writer)
        length = await reader.readexactly(4)
        session.writer.write(length + await reader.readexactly(struct.unpack("!i", length)[0] - 4))
        while True:
            kind, message = await _read_message(session.reader)
            if kind == b"K":
                message = message[:5] + struct.pack("!i", NO_PROCESS) + message[9:]
            writer.write(message)
            if kind == b"Z":
                return session
            if kind == b"R" and struct.unpack("!i", message[5:9])[0] in ASKS_FOR_PASSWORD:
                session.writer.write((await _read_message(reader))[1])

    async def _carry_transaction(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind, message = await _read_message(reader)
        if kind == b"X":
            raise ConnectionResetError
        async with self._came_free:
            await self._came_free.wait_for(lambda: self._free)
            session = self._free.pop()
        answer = asyncio.create_task(
            _answer(session.reader, writer)
        )  # at the same time as the request: some clients wait for a part of the answer
        try:
            while True:
                session.writer.write(message)
                if kind in b"QS":
                    if await answer == b"I":
                        await self._give_back(session)
                        return
                    answer = asyncio.create_task(_answer(session.reader, writer))
                kind, message = await _read_message(reader)
        finally:
            answer.cancel()

    async def _give_back(self, session: _Session) -> None:
        async with self._came_free:
            self._free.append(session)
            self._came_free.notify_all()


class _Session:
    """A session of the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Pass on the server's answer to one message; gives the transaction status."""
    while True:
        kind, message = await _read_message(reader)
        writer.write(message)
        if kind == b"Z":
            return message[5:6]


async def _read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
