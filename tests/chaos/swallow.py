"""A wire that fails without anybody being told: nothing comes out, or only notifications, or all but these."""

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


class Swallower:
    """Carries connections to a database; those of one name can be made deaf, or go half open."""

    def __init__(
        self,
        database: Database,
        *,
        deaf: bytes | None = None,
        loses: bytes | None = None,
        keeps: bytes | None = None,
        greets_as: int | None = None,
    ) -> None:
        """`deaf`: connections whose first message holds this never hear a notification.

        `loses`: on the connection that is the first to ask for this, nothing passes from then on.
        `keeps`: an answer that holds this, and all after it on that connection, wait for `give_answers`.
        `greets_as`: the process that the server calls itself in its greeting, as a pooler does.
        """
        host, port = re.findall(r"@([^:/]+):(\d+)/", database.dsn)[0]
        self._target = (host, int(port))
        self._database = database
        self._deaf = deaf
        self._greets_as = greets_as
        self._loses = loses
        self._keeps = keeps
        self.swallowed = asyncio.Event()  # something that was asked
        self.kept = asyncio.Event()  # the answer that was to be
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._wires: list[_Wire] = []
        self._tasks: set[asyncio.Task[None]] = set()

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

    def swallow(self, named: bytes) -> int:
        """From now on nothing passes on the connections that are open under this name; gives their number."""
        return self._break(named, lambda wire: wire.dead)

    def close(self) -> None:
        """From now on nobody comes in."""
        self._server.close()

    def stay_silent(self) -> None:
        """From now on whoever comes in hears nothing, until `speak`."""
        self._speaks.clear()

    def speak(self) -> None:
        """To those who have waited, too."""
        self._speaks.set()

    def keep_answers(self, named: bytes) -> int:
        """The same, but what is asked arrives, and notifications come out: answers wait for `give_answers`."""
        return self._break(named, lambda wire: wire.mute)

    def give_answers(self) -> None:
        """All that were kept, and those to come at once."""
        for wire in self._wires:
            wire.mute.clear()
            if wire.kept:
                wire.writer.write(b"".join(wire.kept))
            wire.kept.clear()

    def _break(self, named: bytes, part: Callable[[_Wire], asyncio.Event]) -> int:
        broken = [part(wire) for wire in self._wires if named in wire.first and not part(wire).is_set()]
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
            await self._speaks.wait()
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            ends.append(server_writer)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                length = await reader.readexactly(4)
                first = length + await reader.readexactly(struct.unpack("!i", length)[0] - 4)
                server_writer.write(first)
                wire = _Wire(first, writer, deaf=self._deaf is not None and self._deaf in first)
                self._wires.append(wire)
                await asyncio.wait(
                    [
                        asyncio.create_task(self._pass_on(reader, server_writer, wire)),
                        asyncio.create_task(self._answer(server_reader, wire)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            for end in ends:
                end.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: _Wire) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self._loses is not None and self._loses in data:
                    self._loses = None
                    wire.dead.set()
                if wire.dead.is_set():
                    self.swallowed.set()
                else:
                    writer.write(data)

    async def _answer(self, reader: asyncio.StreamReader, wire: _Wire) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
                if head[:1] == GREETING and self._greets_as is not None:
                    body = struct.pack("!i", self._greets_as) + body[4:]
                if self._keeps is not None and self._keeps in body:
                    wire.mute.set()
                    self.kept.set()
                wire.answer(head + body)


@dataclass(slots=True)
class _Wire:
    """One connection: its first message, and what is wrong with it."""

    first: bytes
    writer: asyncio.StreamWriter
    deaf: bool
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    mute: asyncio.Event = field(default_factory=asyncio.Event)
    kept: list[bytes] = field(default_factory=list)

    def answer(self, message: bytes) -> None:
        """What the server says: it comes out, or is kept, or is lost."""
        rings = message[:1] == NOTIFICATION
        if self.dead.is_set() or (rings and self.deaf):
            return
        if self.mute.is_set() and not rings:
            self.kept.append(message)
        else:
            self.writer.write(message)
