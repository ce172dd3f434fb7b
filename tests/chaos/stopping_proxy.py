"""A proxy between a broker and Postgres that stops before or after any statement of the broker.

While it stops, it passes nothing, and both sides wait. Then the test decides: `cut` ends every connection, like a
SIGKILL of the broker; `resume` goes on late.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

from noetl_broker.store import queries
from noetl_broker.store.schema_name import rendered
from tests.postgres import SCHEMA, Database

Moment = Literal["before", "after"]
MOMENTS: tuple[Moment, ...] = ("before", "after")

_NAMES = {rendered(text, SCHEMA): name for name, text in queries.load().items()}
_FIRST = {"begin", "take_mail", "lock_due_schedules"}  # earlier statements set up the connection


class Point(NamedTuple):
    """A moment at one statement of a broker; statements are numbered from 0, the first of a batch.

    `after`: the statement was executed, and its answer never arrives.
    """

    number: int
    moment: Moment


class StoppingProxy:
    """Passes messages on to a database and back; `statements` lists what was sent, `reached` is set at the point."""

    def __init__(
        self, database: Database, point: Point | None = None, *, limits: Mapping[str, float] | None = None
    ) -> None:
        """Stop at `point`; `limits` (in seconds) replace the session timeouts that the broker sets."""
        self.point = point
        self.statements: list[str] = []
        self.reached = asyncio.Event()
        self._limits = limits or {}
        self._flows = asyncio.Event()
        self._flows.set()
        host, port = re.findall(r"@([^:/]+):(\d+)/", database.dsn)[0]
        self._target = (host, int(port))
        self._database = database
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        dsn = re.sub(r"@[^/]+/", f"@127.0.0.1:{port}/", self._database.dsn) + "?sslmode=disable"
        self.database = Database(name=self._database.name, dsn=dsn)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close all connections for ever."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()

    def resume(self) -> None:
        """Pass on everything that was held."""
        self._flows.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, server_writer]
        connection = _Connection(self)
        for work in (connection.ask(reader, server_writer), connection.answer(server_reader, writer)):
            task = asyncio.create_task(_quietly(work, (writer, server_writer)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def wait_at(self, number: int | None, moment: Moment) -> None:
        """Stop if this is the point; wait for `resume` while stopped."""
        if number is not None and self.point == (number, moment) and not self.reached.is_set():
            self._flows.clear()
            self.reached.set()
        await self._flows.wait()

    def shorten(self, startup: bytes) -> bytes:
        """Give the first message of a connection with our session timeouts."""
        body = startup[4:]
        for name, seconds in self._limits.items():
            setting = name.encode() + b"\0"
            body = re.sub(setting + rb"[^\0]*\0", setting + f"{int(seconds * 1000)}ms".encode() + b"\0", body)
        return struct.pack("!i", len(body) + 4) + body


class _Connection:
    """One connection and the number of its current statement."""

    def __init__(self, proxy: StoppingProxy) -> None:
        self._proxy = proxy
        self._counted = False  # set at the first batch
        self._number: int | None = None
        self._prepared: dict[bytes, str] = {}

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on the broker's messages, one whole statement at a time."""
        length = await reader.readexactly(4)
        startup = length + await reader.readexactly(struct.unpack("!i", length)[0] - 4)
        writer.write(self._proxy.shorten(startup))
        gathered, label = b"", ""
        while True:
            kind, message = await _read_message(reader)
            gathered += message
            label = self._label(kind, message[5:]) or label
            if kind not in b"QSHpX":
                continue
            if kind in b"QS":
                self._counted = self._counted or label in _FIRST
                if self._counted:
                    self._number = len(self._proxy.statements)
                    self._proxy.statements.append(label)
            await self._proxy.wait_at(self._number, "before")
            writer.write(gathered)
            gathered, label = b"", ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on the server's messages; hold those of the point until the proxy resumes."""
        held = b""
        while True:
            kind, message = await _read_message(reader)
            held += message
            asked = self._proxy.point is not None and self._proxy.point == (self._number, "after")
            if asked and kind != b"Z":
                continue
            await self._proxy.wait_at(self._number if kind == b"Z" else None, "after")
            writer.write(held)
            held = b""

    def _label(self, kind: bytes, body: bytes) -> str | None:
        """Give the name of our statement in a message, or the statement's first word."""
        if kind == b"Q":
            return _name(body[:-1])
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._prepared[name] = _name(text)
            return None
        if kind == b"B":
            return self._prepared.get(body.split(b"\0", 2)[1], "?")
        return None


def _name(text: bytes) -> str:
    statement = text.decode()
    return _NAMES.get(statement) or statement.split()[0].strip(";").lower()


async def _read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)


async def _quietly(work: object, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
    """Pass messages on until one side closes its connection, then close the other."""
    try:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await work  # type: ignore[misc]
    finally:
        for writer in writers:
            writer.close()
