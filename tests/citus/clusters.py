"""A cluster of Citus, which somebody else runs: `NOETL_TEST_CITUS_DSN` names a database on its coordinator.

Each test makes a database of its own on the coordinator and on all nodes, with an installation of two buckets.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg

from noetl_broker.store.connect.buckets import buckets_of
from noetl_broker.store.connect.installation import OnCitus, create_roles, migrate
from tests.brokers import PATIENCE_SECONDS
from tests.postgres import Database
from tests.sessions import close_pools

VARIABLE = "NOETL_TEST_CITUS_DSN"
BUCKETS = 2
NODES = "select nodename, nodeport from pg_dist_node where groupid > 0 and noderole = 'primary' order by groupid"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A database of a test: an installation on the coordinator, and the addresses of all nodes."""

    installation: Database
    coordinator: tuple[str, int]
    nodes: list[tuple[str, int]]

    def dsn(self, address: tuple[str, int]) -> str:
        """Return the DSN of the database on a node."""
        return _at(self.installation.dsn, address, self.installation.name)

    async def execute(self, text: str, *arguments: object) -> None:
        """Execute at the coordinator, unrendered."""
        await self.fetch(text, *arguments)

    async def fetch(self, text: str, *arguments: object, at: tuple[str, int] | None = None) -> list[asyncpg.Record]:
        """Fetch at the coordinator, or at a node, unrendered."""
        connection = await asyncpg.connect(self.dsn(at or self.coordinator))
        try:
            return list(await connection.fetch(text, *arguments))
        finally:
            await connection.close()

    async def node_of(self, schema: str) -> tuple[str, int]:
        """Return the node that a bucket is on."""
        [row] = await self.fetch(
            """select n.nodename, n.nodeport from pg_dist_shard s join pg_dist_placement p using (shardid)
            join pg_dist_node n using (groupid) where s.logicalrelid = $1::text::regclass""",
            f"{schema}.event",
        )
        return row["nodename"], row["nodeport"]

    async def move(self, schema: str, node: tuple[str, int]) -> None:
        """Move a bucket to a node; again while an old shard is not cleaned up, or Postgres recovers."""
        await close_pools()  # of the test, whose connections are to the old node
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    await self.execute("call citus_cleanup_orphaned_resources()")
                    await self.execute(
                        "select citus_schema_move($1::text::regnamespace, $2::text, $3::int)", schema, *node
                    )
                except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    if await self.node_of(schema) == node:
                        return
                    await asyncio.sleep(0.5)
                else:
                    return

    async def kill_postgres(self, node: tuple[str, int]) -> None:
        """Kill -9 a backend of a node: its Postgres loses all sessions and its memory, and recovers from its WAL."""
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await self.fetch("copy (select 1) to program 'kill -9 $PPID'", at=node)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                with suppress(asyncpg.PostgresError, OSError):
                    await self.fetch("select", at=node)
                    return
                await asyncio.sleep(0.05)

    async def remove(self, node: tuple[str, int]) -> None:
        """Move all buckets to the first node, and remove this one."""
        for bucket in buckets_of(self.installation, BUCKETS):
            if await self.node_of(bucket.schema) != self.nodes[0]:
                await self.move(bucket.schema, self.nodes[0])
        await self.execute("call citus_cleanup_orphaned_resources()")  # or shards would stand in the way of a move back
        await self.execute("select citus_remove_node($1::text, $2::int)", *node)


def _at(dsn: str, address: tuple[str, int], name: str) -> str:
    parts = urlsplit(dsn)
    user, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{at}{address[0]}:{address[1]}", path=f"/{name}").geturl()


async def _everywhere(dsn: str, addresses: list[tuple[str, int]], database: str, text: str) -> None:
    for address in addresses:
        connection = await asyncpg.connect(_at(dsn, address, database))
        try:
            await connection.execute(text)
        finally:
            await connection.close()


@asynccontextmanager
async def installed(dsn: str) -> AsyncIterator[Cluster]:
    """Yield an installation with two buckets, each on a node of its own, and its roles. `dsn`: of the coordinator."""
    given = await asyncpg.connect(dsn)
    nodes = [(row["nodename"], row["nodeport"]) for row in await given.fetch(NODES)]
    maintenance = str(await given.fetchval("select current_database()"))
    await given.close()
    parts = urlsplit(dsn)
    coordinator, name = (parts.hostname or "127.0.0.1", parts.port or 5432), f"test_{secrets.token_hex(8)}"
    everything = [coordinator, *nodes]
    await _everywhere(dsn, everything, maintenance, f"create database {name}")
    await _everywhere(dsn, everything, name, "create extension citus")
    installation = Database(name=name, dsn=_at(dsn, coordinator, name), schema="noetl", installation=None)
    found = Cluster(installation, coordinator, nodes)
    await found.execute("select citus_set_coordinator_host($1::text, $2::int)", *coordinator)
    for node in nodes:
        await found.execute("select citus_add_node($1::text, $2::int)", *node)
    await migrate(installation, BUCKETS, OnCitus.YES)
    await create_roles(installation)
    try:
        yield found
    finally:
        await close_pools()
        await _everywhere(dsn, everything, maintenance, f"drop database {name} with (force)")
