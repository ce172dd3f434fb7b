"""A connection to the tables in memory, on which the real `Batch` and `load_history` run their named statements.

Each await is a place where the world may go on with somebody else, or where this broker may die. What a transaction
writes is kept until its commit, as others see nothing of it before; what it locked is free when it ends, however.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator, Sequence
from typing import Any, Self

import asyncpg

from noetl_broker.store.queries import load
from tests.simulation import reading, writing
from tests.simulation.procedures import STARTS
from tests.simulation.tables import Row, Tables
from tests.simulation.writing import Pending

NAMES = {text: name for name, text in load().items()}


@types.coroutine
def pause(place: str) -> Generator[str, None, None]:
    """Let the world decide who goes on."""
    yield place


class Server:
    """What the transactions of all brokers share: the tables, the locks, and how faithful they are."""

    def __init__(self, tables: Tables, *, large_bytes: int = 8192, sloppy: frozenset[str] = frozenset()) -> None:
        """`sloppy` names what a broken store would leave out: see mutants.py."""
        self.tables = tables
        self.large_bytes = large_bytes
        self.sloppy = sloppy
        self.open: list[Transaction] = []
        self.leases_seen: dict[int, int] = {}  # by event: the lease of its job when the event was last read
        self.missed = 0

    def holder(self, kind: str, key: int) -> Transaction | None:
        """Return the transaction that holds a lock: on a mail, on an execution, or on the row of its state."""
        return next((one for one in self.open if (kind, key) in one.locks), None)


class Transaction:
    """One transaction: `async with`, as asyncpg has it."""

    def __init__(self, server: Server) -> None:
        """Not begun yet."""
        self.server = server
        self.locks: set[tuple[str, int]] = set()
        self.pending: list[Pending] = []
        self.is_open = False
        self.waits_for: Transaction | None = None

    async def __aenter__(self) -> Self:
        """Begin."""
        await pause("begin")
        self.is_open = True
        self.server.open.append(self)
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        """Commit, or roll back after an error."""
        if kind is not None:
            self.abort()
            return
        await pause("commit")
        self.check()
        for write in self.pending:
            write(self.server.tables)
        self.abort()
        await pause("committed")

    def abort(self) -> None:
        """Free the locks; what was not committed is gone."""
        if self.is_open:
            self.is_open = False
            self.server.open.remove(self)

    def check(self) -> None:
        """Raise if the server has ended the session meanwhile."""
        if not self.is_open:
            raise asyncpg.ConnectionFailureError("the connection was lost")

    async def wait_for_states(self, executions: Sequence[int]) -> None:
        """Wait for those who have written the same states and not committed: a row is locked until then."""
        while True:
            others = (self.server.holder("state", execution) for execution in executions)
            self.waits_for = next((other for other in others if other not in {None, self}), None)
            if self.waits_for is None:
                break
            if self.waits_for.waits_for is self:
                raise asyncpg.DeadlockDetectedError("deadlock detected")
            await pause("blocked")
            self.check()
        self.locks.update(("state", execution) for execution in executions)


class Connection:
    """One session of a broker."""

    def __init__(self, server: Server) -> None:
        """Connected."""
        self.server = server
        self._transaction: Transaction | None = None

    def transaction(self, **_how: object) -> Transaction:
        """Return a transaction, not begun yet; all of them see what is committed when they look."""
        self._transaction = Transaction(self.server)
        return self._transaction

    def abort(self) -> None:
        """End the session at the server's side: its next statement fails."""
        if self._transaction is not None:
            self._transaction.abort()

    @property
    def is_idle(self) -> bool:
        """Tell whether no transaction is open."""
        return self._transaction is None or not self._transaction.is_open

    async def fetch(self, statement: str, *arguments: Any) -> list[Row]:
        """Return the rows of a statement."""
        name = NAMES[statement]
        await pause(name)
        if self._transaction is not None:
            self._transaction.check()
        if name == "take_mail" and self._transaction is not None:
            return await take_mail(self.server, self._transaction, *arguments)
        rows: list[Row] = getattr(reading, name)(self.server.tables, *arguments)
        return rows

    async def fetchrow(self, statement: str, *arguments: Any) -> Row | None:
        """Return the first row of a statement."""
        if NAMES[statement] != "write_turns" or self._transaction is None:
            rows = await self.fetch(statement, *arguments)
            return rows[0] if rows else None
        await pause("write_turns")
        transaction = self._transaction
        transaction.check()
        await transaction.wait_for_states([source["execution_id"] for source in writing.sources(arguments)])
        row, pending = writing.write_turns(self.server.tables, arguments, sloppy=self.server.sloppy)
        transaction.pending.append(pending)
        return row

    async def execute(self, statement: str, *arguments: Any) -> str:
        """Keep what a statement writes for the commit."""
        name = NAMES[statement]
        await pause(name)
        if self._transaction is None:
            raise RuntimeError(f"{name} outside a transaction")
        self._transaction.check()
        write: Callable[..., Pending] = getattr(writing, name)
        self._transaction.pending.append(write(*arguments))
        return name


async def take_mail(server: Server, own: Transaction, most: int, newest: bool, first: int) -> list[Row]:  # noqa: FBT001
    """Claim by row, then by lock, then look: three statements, between which others may go on."""
    tables = server.tables
    in_order = sorted(tables.inbox.values(), key=lambda row: row["mail_id"], reverse=newest)
    free = [row for row in in_order if row["mail_id"] >= first and server.holder("mail", row["mail_id"]) is None]
    claimed = sorted(free[:most], key=lambda row: row["mail_id"])
    own.locks.update(("mail", row["mail_id"]) for row in claimed)
    if not claimed:
        return []
    await pause("lock")
    own.check()
    wanted = {row["execution_id"] for row in claimed}
    seen = []
    if "look_before_lock" in server.sloppy:
        seen = reading.mail_rows(server, claimed, writing.missing_executions(tables, claimed, wanted))
        await pause("lock")
        own.check()
    if "no_lock" in server.sloppy:
        held = wanted
    else:
        held = {execution for execution in wanted if server.holder("execution", execution) is None}
    own.locks.update(("execution", execution) for execution in held)
    await pause("look")
    own.check()
    missing = writing.missing_executions(tables, claimed, held)
    own.pending.append(writing.insert_executions(missing))
    rows = seen or reading.mail_rows(server, claimed, missing)
    for row in rows:
        row["locked"] = row["execution_id"] in held and not _waits_for_its_start(tables, row, claimed)
    server.missed += len(rows) - sum(row["locked"] for row in rows)
    if "ack_before_commit" in server.sloppy:
        for row in rows:
            if row["locked"]:
                tables.inbox.pop(row["mail_id"], None)
    return rows[::-1]  # in no order that anybody may count on


def _waits_for_its_start(tables: Tables, mail: Row, claimed: list[Row]) -> bool:
    """Tell whether the start of the execution is there, and neither read nor among what is claimed."""
    if mail["turn"] is not None or mail["event_type"].lower() in STARTS:
        return False
    here = {row["event_id"] for row in claimed} | {row["event_id"] for row in tables.dead_letters}
    return any(
        event["execution_id"] == mail["execution_id"] and event["event_type"].lower() in STARTS
        for event_id, event in tables.events.items()
        if event_id not in here
    )
