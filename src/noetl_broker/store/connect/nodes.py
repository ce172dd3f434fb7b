"""Citus: the node that a bucket is on, and the connections to it.

A bucket is a distributed schema: all its shards are on one node, and Citus moves them together. Every node knows where
each shard is. So a connection to any of them says which one to connect to. A bucket that is moved later refuses our
statements there (`NB503`, or `42P01` of a shard). The connection is then replaced like one that was lost, and the new
one is made where the bucket is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import asyncpg

from noetl_broker.errors import DatabaseFault
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.schema_name import Shards, shards_of
from noetl_broker.store.queries import sql

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
Opens = Callable[..., Awaitable["asyncpg.Connection[Any]"]]

MOST_HOPS = 5  # a bucket may be moved between the question where it is and the connection
COORDINATOR = 0  # its group


class NodeName(NamedTuple):
    """A server of a cluster, as Citus names it."""

    host: str
    port: int

    def __str__(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"


class Placement(NamedTuple):
    """Where a bucket is; `shards` of its tables, None: it is not distributed.

    `is_here`: the connection that was asked is to that node.
    """

    node: NodeName
    is_here: bool
    shards: Shards | None


# Where each bucket was found last: asked first, so that the others need not answer.
_last_found: dict[Database, NodeName] = {}


async def find(connection: asyncpg.Connection[Any], database: Database) -> Placement | None:
    """Where the bucket is, or the coordinator; None: it is on no node."""
    if not await connection.fetchval(sql("has_citus")):
        return None
    row = await connection.fetchrow(sql("find_node"), COORDINATOR if database.at_coordinator else None)
    if row is None:
        return None
    shards = None
    if database.may_be_bucket and row["tables"] is not None:  # an installation's own tables are on all nodes
        shards = shards_of(() if database.at_coordinator else tuple(zip(row["tables"], row["shards"], strict=True)))
    return Placement(NodeName(row["host"], row["port"]), row["is_here"], shards)


async def is_on_citus(connection: Connection) -> bool:
    """Whether the buckets of this installation are on nodes."""
    return bool(await connection.fetchval(sql("has_citus")) and await connection.fetchval(sql("is_shared")))


async def is_elsewhere(connection: Connection) -> bool:
    """Whether the bucket of this connection is on another node by now."""
    shards = getattr(connection, "shards", None)
    if shards is None or not shards.of:
        return False
    row = await connection.fetchrow(sql("find_node"), None)
    return row is None or not row["is_here"]


def node_of(database: Database) -> NodeName | None:
    """The node where this process found the bucket last; None: it has not, or is about to look."""
    return _last_found.get(database)


async def open_at_node(database: Database, opens: Opens) -> asyncpg.Connection[Any]:
    """A connection to the node of a bucket, or to the database if it is on none. `opens` takes a host and a port."""
    if not (database.may_be_bucket or database.at_coordinator):
        return await opens()
    remembered = node = _last_found.get(database)
    for _ in range(MOST_HOPS):
        try:
            connection = await opens(**_address(database, node))
        except (OSError, TimeoutError) as error:
            if node is None:
                raise
            if remembered is None:
                raise _away(database, node, error) from error
            _last_found.pop(database, None)
            remembered = node = None  # it may have been moved
            continue
        try:
            found = await find(connection, database)
        except BaseException:
            connection.terminate()
            raise
        if found is None or found.is_here:
            if found is not None:
                _last_found[database] = found.node
            if found is not None and found.shards is not None:
                connection.shards = found.shards  # type: ignore[attr-defined] # of `connection_class`
            return connection
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=1.0)
        _last_found.pop(database, None)
        remembered, node = None, found.node
    raise DatabaseFault(f"the bucket {database.schema} is moved again and again, or `nodes` has a wrong address")


def _address(database: Database, node: NodeName | None) -> dict[str, Any]:
    """Where we connect to a node: the setting `nodes` may say something else than Citus."""
    if node is None:
        return {}
    host, _, port = dict(database.nodes).get(str(node), str(node)).rpartition(":")
    return {"host": host, "port": int(port)}


def _away(database: Database, node: NodeName, error: Exception) -> OSError:
    """The error of a node that cannot be reached, which names it and the bucket."""
    what = "coordinator" if database.at_coordinator else f"node of the bucket {database.schema}"
    return ConnectionError(f"{node}, the {what}, does not answer: {str(error) or type(error).__name__}")
