"""Citus: a migration as a distributed schema takes it.

Tables, views, and functions that change tables or read partitions go through Citus. The other functions name the shards
of their tables, whose names are the same on every node. So a call on the node of the bucket is planned as on plain
Postgres. A function that people call is made known to Citus, so any node passes a call on. It begins with a look
whether the bucket is here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from noetl_broker.errors import OperatorFault
from noetl_broker.sql_text import split_statements
from noetl_broker.store.connect.schema_name import Shards, pinned, shards_of
from noetl_broker.store.queries import sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from noetl_broker.store.connect.connection import Connection

ANCHOR = "event"  # the table whose shard stands for those of the bucket: they are moved together
LOOKS = "begin\n  perform noetl.stay();\n"
TRIED = ("15.0",)  # versions of Citus

_FUNCTION = re.compile(r"create or replace function noetl\.(\w+)")
_PUBLIC = re.compile(
    r"comment on function\s+noetl\.(\w+)"
)  # a function has a comment if roles other than a broker's call it
_CHANGES_TABLES = re.compile(r"\b(?:create|alter|drop) table\b|\bnoetl_history\.")
_BEGIN = re.compile(r"^begin\n", re.MULTILINE)


async def check(connection: Connection, *, any_version: bool) -> None:
    """Raise OperatorFault if the database has no Citus, or one that was not tried; `any_version` allows that."""
    version = await connection.fetchval(sql("citus_version"))
    if version is None:
        raise OperatorFault(
            "the database has no Citus: create extension citus in it on each node (the page Scaling says how), or leave"
            " --citus out"
        )
    if not any_version and not version.startswith(TRIED):
        raise OperatorFault(
            f"Citus {version} was not tried with this program, which knows {', '.join(TRIED)}; --untried-citus takes it"
            " all the same"
        )


async def apply(connection: Connection, text: str) -> None:
    """Apply a file at the coordinator, in the transaction of the caller; its functions do not name shards yet."""
    await connection.execute(sql("change_shards_in_turn"))
    for statement in statements_of(text):
        await connection.execute(statement)


async def pin(connection: Connection, texts: Iterable[str]) -> None:
    """Let the functions of all files name shards, and make those that people call known to every node.

    A file may name a table of a later one, so this comes after all of them.
    """
    shards = await _shards(connection)
    async with connection.transaction():
        await connection.execute(sql("change_shards_in_turn"))
        for text in texts:
            public = {*_PUBLIC.findall(text)}
            for statement in statements_of(text):
                found = _FUNCTION.search(statement)
                if found is None or _CHANGES_TABLES.search(statement):
                    continue
                looking = _BEGIN.sub(LOOKS, statement, count=1) if found[1] in public else statement
                anchor = shards.of[ANCHOR].rpartition("_")[2]
                await connection.execute(pinned(looking, shards).replace("{anchor}", anchor))
        await connection.execute(sql("distribute_functions"))


def statements_of(text: str) -> Iterator[str]:
    """The statements of a text, each with its semicolon."""
    for statement in split_statements(text):
        yield f"{statement};"


async def _shards(connection: Connection) -> Shards:
    row = await connection.fetchrow(sql("find_node"), None)
    return shards_of(tuple(zip(row["tables"], row["shards"], strict=True)) if row else ())
