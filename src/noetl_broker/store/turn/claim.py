"""Claim mail under locks, and move mail that fails to the dead letters."""

from __future__ import annotations

from collections import defaultdict
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from noetl_broker.store.connect.sqlstates import is_unreadable, reason_of
from noetl_broker.store.queries import sql
from noetl_broker.store.turn.claimed_rows import Execution, Mail, execution_of, mail_of

if TYPE_CHECKING:
    from noetl_broker.store.connect.connection import Connection


class ClaimStart(NamedTuple):
    """Where a claim begins: at a mail id, with the oldest or the newest mail first."""

    mail_id: int
    newest: bool


class Claim:
    """The result of one `take_mail`: the mail of each locked execution, and how much mail other brokers hold."""

    def __init__(self) -> None:
        """Nothing claimed yet."""
        self.mail: dict[int, list[Mail]] = defaultdict(list)
        self.executions: dict[int, Execution] = {}
        self.locked_elsewhere = 0
        self.first_mail_id: int | None = None  # also of mail that others hold
        self.last_mail_id = 0

    def leave(self, execution_id: int) -> int:
        """Leave the mail of an execution in the inbox, as if another broker held it; gives how much."""
        mails = len(self.mail.pop(execution_id))
        del self.executions[execution_id]
        self.locked_elsewhere += mails
        return mails

    @property
    def mails(self) -> int:
        """The number of mails that it found."""
        return sum(map(len, self.mail.values())) + self.locked_elsewhere


async def claim_mail(connection: Connection, start: ClaimStart, *, max_mail: int) -> Claim:
    """Claim up to `max_mail` events and lock their executions. Call it inside a transaction."""
    claim = Claim()
    rows = await connection.fetch(sql("take_mail"), max_mail, start.newest, start.mail_id)
    rows.sort(key=itemgetter("mail_id"))  # rows are wide: sorting here costs a tenth of sorting in SQL
    if rows:
        claim.first_mail_id, claim.last_mail_id = rows[0]["mail_id"], rows[-1]["mail_id"]
    for row in rows:
        if not row["locked"]:
            claim.locked_elsewhere += 1
            continue
        execution_id = row["execution_id"]
        if execution_id not in claim.executions:
            claim.executions[execution_id] = execution_of(row)
        claim.mail[execution_id].append(mail_of(row))
    return claim


async def set_lock_timeout(connection: Connection, milliseconds: int) -> None:
    """Limit each lock wait of this transaction."""
    await connection.execute(sql("set_lock_timeout"), milliseconds)


async def move_to_dead_letters(connection: Connection, mail: list[Mail], reason: str) -> list[int]:
    """Move mail that is still in the inbox to the dead letters; gives the executions."""
    rows = await connection.fetch(sql("move_to_dead_letters"), [one.mail_id for one in mail], reason)
    return [row["execution_id"] for row in rows]


async def move_unreadable_to_dead_letters(connection: Connection, start: ClaimStart) -> list[int]:
    """Move the first mail of a claim to the dead letters if it cannot be read; gives the executions.

    The mail is claimed alone before. If another broker holds the mail that failed the claim, this finds the next mail.
    """
    mail_id = await connection.fetchval(sql("lock_newest_mail" if start.newest else "lock_oldest_mail"), start.mail_id)
    if mail_id is None:
        return []
    try:
        async with connection.transaction():
            await claim_mail(connection, ClaimStart(mail_id, newest=False), max_mail=1)
    except asyncpg.PostgresError as error:
        if not is_unreadable(error):
            raise
        rows = await connection.fetch(sql("move_to_dead_letters"), [mail_id], reason_of(error))
        return [row["execution_id"] for row in rows]
    return []
