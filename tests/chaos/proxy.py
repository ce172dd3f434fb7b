"""A wire between a broker and Postgres that stands still before or after any one of the broker's statements.

Nothing passes while it stands still, and both sides believe the other is only slow. The test then decides what became
of the broker: `cut` ends every connection, as a process killed with -9 does; `go_on` lets it wake up late.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

from noetl_broker.store import queries
from tests.postgres import Database

Moment = Literal["before", "after"]
MOMENTS: tuple[Moment, ...] = ("before", "after")

_NAMES = {text: name for name, text in queries.load().items()}
_FIRST = {"begin", "take_mail"}  # what comes before these sets the connection up


class Point(NamedTuple):
    """A moment at one statement of a broker; they are numbered from 0, the first of an evaluation, on.

    `after`: the statement was carried out, and its answer never arrives.
    """

    number: int
    moment: Moment


class Proxy:
    """Carries messages to a database and back; `statements` names what was sent, `reached` that it stands still."""

    def __init__(
        self, database: Database, point: Point | None = None, *, limits: Mapping[str, float] | None = None
    ) -> None:
        """Stand still at `point`; `limits` replace those that the broker sets for its sessions, in seconds."""
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
        """Open a port of its own."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        dsn = re.sub(r"@[^/]+/", f"@127.0.0.1:{port}/", self._database.dsn) + "?sslmode=disable"
        self.database = Database(name=self._database.name, dsn=dsn)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave nothing open."""
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End all connections, to both sides and for good."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()

    def go_on(self) -> None:
        """Let everything pass that was held back."""
        self._flows.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, server_writer]
        wire = _Wire(self)
        for work in (wire.ask(reader, server_writer), wire.answer(server_reader, writer)):
            task = asyncio.create_task(_quietly(work, (writer, server_writer)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def pass_by(self, number: int | None, moment: Moment) -> None:
        """Stand still if this is the point; wait while it stands still."""
        if number is not None and self.point == (number, moment) and not self.reached.is_set():
            self._flows.clear()
            self.reached.set()
        await self._flows.wait()

    def shorten(self, startup: bytes) -> bytes:
        """Give the first message of a connection, with limits of ours in it."""
        body = startup[4:]
        for name, seconds in self._limits.items():
            setting = name.encode() + b"\0"
            body = re.sub(setting + rb"[^\0]*\0", setting + f"{int(seconds * 1000)}ms".encode() + b"\0", body)
        return struct.pack("!i", len(body) + 4) + body


class _Wire:
    """One connection: which statement is under way on it."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._counted = False  # from its first evaluation on
        self._number: int | None = None
        self._prepared: dict[bytes, str] = {}

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry the broker's messages, a whole statement at a time."""
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
            await self._proxy.pass_by(self._number, "before")
            writer.write(gathered)
            gathered, label = b"", ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry the server's messages; those of the point only once it is passed."""
        held = b""
        while True:
            kind, message = await _read_message(reader)
            held += message
            asked = self._proxy.point is not None and self._proxy.point == (self._number, "after")
            if asked and kind != b"Z":
                continue
            await self._proxy.pass_by(self._number if kind == b"Z" else None, "after")
            writer.write(held)
            held = b""

    def _label(self, kind: bytes, body: bytes) -> str | None:
        """What a message asks for: the name of one of our statements, or its first word."""
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
    """Carry until one side hangs up, then hang up on the other."""
    try:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await work  # type: ignore[misc]
    finally:
        for writer in writers:
            writer.close()
