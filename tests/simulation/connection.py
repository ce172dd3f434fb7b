"""A connection to the tables in memory, on which the daemon's `Batch` and `load_history` run their statements.

At each await the simulator may go on with another broker, or this one may crash. A transaction writes at its commit,
because others see nothing before. It frees its locks at its end.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator, Sequence
from typing import Any, Self

import asyncpg

from noetl_broker.store.queries import load
from tests.simulation import read_statements, write_statements
from tests.simulation.sql_functions import STARTS
from tests.simulation.tables import Row, Tables
from tests.simulation.write_statements import Pending

NAMES = {text: name for name, text in load().items()}


@types.coroutine
def pause(place: str) -> Generator[str, None, None]:
    """Return to the simulator, which chooses what goes on."""
    yield place


class Server:
    """The tables and locks that all transactions share."""

    def __init__(self, tables: Tables, *, large_bytes: int = 8192, defects: frozenset[str] = frozenset()) -> None:
        """`defects` names the rules that this store breaks: see mutants.py."""
        self.tables = tables
        self.large_bytes = large_bytes
        self.defects = tables.defects = defects
        self.open: list[Transaction] = []
        self.leases_seen: dict[int, int] = {}  # by event: how many leases its job had when it was last read
        self.missed = 0

    def holder(self, kind: str, key: int) -> Transaction | None:
        """Return the transaction that holds a lock on mail, an execution, or the row of its state."""
        return next((other for other in self.open if (kind, key) in other.locks), None)


class Transaction:
    """One transaction, used with `async with` like that of asyncpg."""

    def __init__(self, server: Server) -> None:
        """Begins when it is entered."""
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
        """End without a commit, and free the locks."""
        if self.is_open:
            self.is_open = False
            self.server.open.remove(self)

    def check(self) -> None:
        """Raise if the server has ended the session."""
        if not self.is_open:
            raise asyncpg.ConnectionFailureError("the connection was lost")

    async def wait_for_states(self, executions: Sequence[int]) -> None:
        """Lock the rows of these states; wait for transactions that have locked one of them."""
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
        """Open a connection."""
        self.server = server
        self._transaction: Transaction | None = None

    def transaction(self, **_how: object) -> Transaction:
        """Return a transaction; each statement in it sees what is committed at that time."""
        self._transaction = Transaction(self.server)
        return self._transaction

    def abort(self) -> None:
        """End the session in the server: its next statement fails."""
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
        rows: list[Row] = getattr(read_statements, name)(self.server.tables, *arguments)
        return rows

    async def fetchrow(self, statement: str, *arguments: Any) -> Row | None:
        """Return the first row of a statement."""
        if NAMES[statement] not in {"write_turns", "write_first_turns"} or self._transaction is None:
            rows = await self.fetch(statement, *arguments)
            return rows[0] if rows else None
        await pause("write_turns")
        transaction = self._transaction
        transaction.check()
        await transaction.wait_for_states([source["execution_id"] for source in write_statements.sources(arguments)])
        row, pending = write_statements.write_turns(self.server.tables, arguments, defects=self.server.defects)
        transaction.pending.append(pending)
        return row

    async def execute(self, statement: str, *arguments: Any) -> str:
        """Keep the writes of a statement for the commit."""
        name = NAMES[statement]
        await pause(name)
        if self._transaction is None:
            raise RuntimeError(f"{name} outside a transaction")
        self._transaction.check()
        write: Callable[..., Pending] = getattr(write_statements, name)
        self._transaction.pending.append(write(*arguments))
        return name


async def take_mail(server: Server, own: Transaction, most: int, newest: bool, first: int) -> list[Row]:
    """Claim rows, then lock executions, then read: three statements; others may go on between them."""
    tables = server.tables
    by_age = sorted(tables.inbox.values(), key=lambda row: row["mail_id"], reverse=newest)
    free = [row for row in by_age if row["mail_id"] >= first and server.holder("mail", row["mail_id"]) is None]
    claimed = sorted(free[:most], key=lambda row: row["mail_id"])
    own.locks.update(("mail", row["mail_id"]) for row in claimed)
    if not claimed:
        return []
    await pause("lock")
    own.check()
    wanted = {row["execution_id"] for row in claimed}
    seen = []
    if "read_before_lock" in server.defects:
        seen = read_statements.mail_rows(server, claimed, write_statements.missing_executions(tables, claimed, wanted))
        await pause("lock")
        own.check()
    if "no_lock" in server.defects:
        held = wanted
    else:
        held = {execution for execution in wanted if server.holder("execution", execution) is None}
    own.locks.update(("execution", execution) for execution in held)
    await pause("read")
    own.check()
    missing = write_statements.missing_executions(tables, claimed, held)
    own.pending.append(write_statements.insert_executions(missing))
    rows = seen or read_statements.mail_rows(server, claimed, missing)
    for row in rows:
        row["locked"] = row["execution_id"] in held and not _start_is_elsewhere(tables, row, claimed)
    server.missed += len(rows) - sum(row["locked"] for row in rows)
    if "ack_before_commit" in server.defects:
        for row in rows:
            if row["locked"]:
                tables.inbox.pop(row["mail_id"], None)
    return rows[::-1]  # callers may not rely on an order


def _start_is_elsewhere(tables: Tables, mail: Row, claimed: list[Row]) -> bool:
    """Tell whether the start of the execution is unread mail that is not among the claimed."""
    if mail["turn"] is not None or mail["event_type"].lower() in STARTS:
        return False
    here = {row["event_id"] for row in claimed} | {row["event_id"] for row in tables.dead_letters}
    return any(
        event["event_type"].lower() in STARTS and event["event_id"] not in here
        for event in tables.events_of[mail["execution_id"]]
    )
