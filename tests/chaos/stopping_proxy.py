"""A proxy between a broker and Postgres that stops before or after any statement of the broker.

While it stops, it passes nothing, and both sides wait. Then the test decides: `cut` ends every connection, like a
SIGKILL of the broker; `resume` goes on late.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Mapping
from typing import Literal, NamedTuple

from noetl_broker.store import queries
from noetl_broker.store.connect.schema_name import rendered
from tests.chaos.proxy import Ends, Proxied, Proxy, read_message
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


class StoppingProxy(Proxy):
    """`statements` lists what was sent, `reached` is set at the point."""

    def __init__(
        self, database: Database, point: Point | None = None, *, limits: Mapping[str, float] | None = None
    ) -> None:
        """Stop at `point`; `limits` (in seconds) replace the session timeouts that the broker sets."""
        super().__init__(database)
        self.point = point
        self.statements: list[str] = []
        self.reached = asyncio.Event()
        self._limits = limits or {}
        self._flows = asyncio.Event()
        self._flows.set()

    def cut(self) -> None:
        """Close all connections for ever."""
        self.close()
        super().cut()

    def resume(self) -> None:
        """Pass on everything that was held."""
        self._flows.set()

    def connection(self, first: bytes, client: Ends, server: Ends) -> Proxied:
        """Count its statements."""
        return _Counted(self, self._shortened(first), client, server)

    async def wait_at(self, number: int | None, moment: Moment) -> None:
        """Stop if this is the point; wait for `resume` while stopped."""
        if number is not None and self.point == (number, moment) and not self.reached.is_set():
            self._flows.clear()
            self.reached.set()
        await self._flows.wait()

    def _shortened(self, first: bytes) -> bytes:
        body = first[4:]
        for name, seconds in self._limits.items():
            setting = name.encode() + b"\0"
            body = re.sub(setting + rb"[^\0]*\0", setting + f"{int(seconds * 1000)}ms".encode() + b"\0", body)
        return struct.pack("!i", len(body) + 4) + body


class _Counted(Proxied):
    """One connection and the number of its current statement."""

    def __init__(self, proxy: StoppingProxy, first: bytes, client: Ends, server: Ends) -> None:
        super().__init__(first, client, server)
        self._proxy = proxy
        self._counted = False  # set at the first batch
        self._number: int | None = None
        self._prepared: dict[bytes, str] = {}

    async def ask(self) -> None:
        """Pass on the broker's messages, one whole statement at a time."""
        gathered, label = b"", ""
        while True:
            kind, message = await read_message(self.client_reader)
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
            self.server.write(gathered)
            gathered, label = b"", ""

    async def answer(self) -> None:
        """Pass on the server's messages; hold those of the point until the proxy resumes."""
        held = b""
        while True:
            kind, message = await read_message(self.server_reader)
            held += message
            if self._proxy.point is not None and self._proxy.point == (self._number, "after") and kind != b"Z":
                continue
            await self._proxy.wait_at(self._number if kind == b"Z" else None, "after")
            self.client.write(held)
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
