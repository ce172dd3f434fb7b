"""A session for a command that waits: it connects again while the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Self, TypeVar

from noetl_broker.errors import DatabaseFault, PermissionFault, SchemaFault
from noetl_broker.growing_pauses import Backoff
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.session import session, translate_faults
from noetl_broker.store.connect.sqlstates import is_transient

Answer = TypeVar("Answer")
PAUSES = (0.1, 2.0)  # seconds between two attempts to connect, the first and the longest


class LastingSession:
    """Reads of one command. `say` gets a sentence when the database goes away, and one when it is back.

    The first connection is tried once, unless the database is known to answer: a wrong address ends the command.
    """

    def __init__(
        self,
        database: Database,
        *,
        name: str,
        say: Callable[[str], None],
        of: int | None = None,
        known_to_answer: bool = False,
    ) -> None:
        """Connect to nothing yet. `of`: the execution that is read, as in `session`."""
        self.schema = database.schema
        self._database = database
        self._name = name
        self._of = of
        self._say = say
        self._stack = AsyncExitStack()
        self._connection: Connection | None = None
        self._connected = known_to_answer
        self._is_away = False

    async def __aenter__(self) -> Self:
        """Return itself; it connects at the first read."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close."""
        await self._stack.aclose()

    async def read(self, ask: Callable[[Connection], Awaitable[Answer]]) -> Answer:
        """The answer of a read, which is repeated on a new connection if the old one is lost. Raises other faults."""
        backoff = Backoff(*PAUSES)
        while True:
            try:
                connection = await self._open()
                with translate_faults(connection):
                    answer = await ask(connection)
            except (PermissionFault, SchemaFault):
                raise
            except DatabaseFault as fault:
                await self._close()
                if not self._connected or not is_transient(fault.__cause__ or fault):
                    raise
                self._note_away(fault)
                await asyncio.sleep(backoff.next())
                continue
            if self._is_away:
                self._is_away = False
                self._say("the database is back")
            return answer

    async def _open(self) -> Connection:
        if self._connection is None:
            opened = session(self._database, name=self._name, of=self._of)
            self._connection = await self._stack.enter_async_context(opened)
            self._connected = True
        return self._connection

    async def _close(self) -> None:
        stack, self._stack, self._connection = self._stack, AsyncExitStack(), None
        await stack.aclose()

    def _note_away(self, fault: DatabaseFault) -> None:
        if not self._is_away:
            self._is_away = True
            self._say(f"waiting for the database: {fault}")
