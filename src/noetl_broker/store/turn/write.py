"""Write what the turns of a batch decided, everything or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import asyncpg

from noetl_broker.errors import BrokerError, OversizeFault
from noetl_broker.store.connect.sqlstates import is_conflict
from noetl_broker.store.queries import sql
from noetl_broker.store.row_layout import columns_of
from noetl_broker.store.turn import slots
from noetl_broker.store.turn.child_rows import child_answer_of_adopted
from noetl_broker.store.turn.columns import Columns
from noetl_broker.store.turn.effects import AFTER, BEFORE, Statement

if TYPE_CHECKING:
    from asyncpg import Record

    from noetl_broker.store.connect.connection import Connection


class ConflictFault(BrokerError):
    """Another broker has taken a turn of the same execution: roll back and claim again."""


def is_lost_race(error: BaseException) -> bool:
    """Whether a write failed because another broker was first."""
    return isinstance(error, ConflictFault) or is_conflict(error)


async def write_columns(connection: Connection, columns: Columns, *, max_gathered_bytes: int) -> None:
    """Write everything that the turns decided.

    Raises ConflictFault if another broker was first. Raises OversizeFault if it is too much for one statement: write
    fewer turns. `max_gathered_bytes` limits the gathered results of one iterator, uncompressed.
    """
    await _write(connection, BEFORE, columns, None)
    row = await _write_turns(connection, columns)
    for adoptions in columns.adoptions.values():  # each call sees the adoptions of the calls before
        ended = await connection.fetch(sql("adopt_children"), *columns_of(adoptions, 4))
        columns.child_answers += map(child_answer_of_adopted, ended)
    await _write(connection, AFTER, columns, row)
    if columns.slots:
        columns.admits = await slots.write_slots(connection, columns.slots)
    posts = columns.rows.get("write_posts")
    if posts:
        await connection.execute(sql("write_posts"), *columns_of(posts, 3), max_gathered_bytes)


async def _write(connection: Connection, statements: Iterable[Statement], columns: Columns, row: Record | None) -> None:
    """Run the statements that have something to write: few batches need one of them."""
    for statement in statements:
        arguments = statement.arguments(columns, row)
        if arguments is not None:
            await connection.execute(sql(statement.name), *arguments)


async def _write_turns(connection: Connection, columns: Columns) -> Record:
    try:
        statement = sql("write_first_turns" if columns.begun else "write_turns")
        row = await connection.fetchrow(statement, *columns.write_arguments())
    except asyncpg.ProgramLimitExceededError as error:
        # A jsonb holds 268 million bytes; several turns together may need more.
        raise OversizeFault(f"the turns are too large for one statement: {error}") from error
    if row is None:
        raise ConflictFault("write_turns returned no row")
    if (moved := row["moved"]) != columns.executions:
        message = f"{columns.executions - moved} of {columns.executions} executions were moved by another broker"
        raise ConflictFault(message)
    if row["ended"] != len(columns.ended):
        raise ConflictFault("an execution that ended has got a parent meanwhile")
    return row


async def set_savepoint(connection: Connection) -> None:
    """Set the savepoint: a write that fails after it can be undone without losing the locks."""
    await connection.execute(sql("set_savepoint"))


async def rollback_to_savepoint(connection: Connection) -> None:
    """Undo what was written since the savepoint."""
    await connection.execute(sql("rollback_to_savepoint"))


async def suppress_notifications(connection: Connection) -> None:
    """Send no notification from this transaction; workers and followers poll."""
    await connection.execute(sql("suppress_notifications"))
