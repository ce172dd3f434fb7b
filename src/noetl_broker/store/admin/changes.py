"""The turn number of each watched execution, by which a change is noticed."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from noetl_broker.broker.state.state import is_live
from noetl_broker.store.admin.overview import MOST_COUNTED
from noetl_broker.store.connect.connection import Connection
from noetl_broker.store.queries import sql

NEWEST = 500  # executions, and as many that have not ended, that are watched where all are


class LatestTurn(NamedTuple):
    """The latest turn of an execution, and its status then. Another turn number means that it changed."""

    turn: int
    status: str

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return is_live(self.status)


class Attention(NamedTuple):
    """How much waits for a person; a count of MOST_COUNTED means at least so many."""

    approvals: int
    dead_letters: int


async def count_attention(connection: Connection) -> Attention:
    """How much waits for a person. Its cost has a bound."""
    return Attention(*await connection.fetchrow(sql("count_attention"), MOST_COUNTED) or (0, 0))


async def load_latest_turns(
    connection: Connection, execution_ids: Collection[int], *, newest: bool, ended: Collection[int] = ()
) -> tuple[dict[int, LatestTurn], float]:
    """Where these executions stand, by id, and how many seconds the server took.

    `newest`: also the newest ones, without those of `ended`, which nothing changes any more.
    """
    rows = await connection.fetch(sql("list_turns"), [*execution_ids], newest, NEWEST, [*ended])
    turns = {row["execution_id"]: LatestTurn(row["turn"], row["status"]) for row in rows}
    return turns, max((row["seconds"] for row in rows), default=0.0)
