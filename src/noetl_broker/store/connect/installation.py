"""An installation with buckets: makes it, brings it up to date, and grants its roles their rights.

`migrate` begins and continues it: what is done stays, so an interrupted call is repeated.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

import asyncpg

from noetl_broker.errors import OperatorFault, PermissionFault, SchemaFault
from noetl_broker.resources import migrations_folder
from noetl_broker.store.connect import citus, migrations
from noetl_broker.store.connect.buckets import FEWEST, MOST, HasBuckets, buckets_of, count_buckets
from noetl_broker.store.connect.connection import connect, schema_of, transaction
from noetl_broker.store.connect.nodes import is_on_citus
from noetl_broker.store.connect.schema_name import check_schema_name, rendered
from noetl_broker.store.connect.session import session
from noetl_broker.store.queries import sql

if TYPE_CHECKING:
    from noetl_broker.store.connect.connection import Connection
    from noetl_broker.store.connect.dsn import Database


class OnCitus(Enum):
    """Whether the buckets of an installation are made on nodes of Citus."""

    NO = "no"
    YES = "yes"
    ANY_VERSION = "any version"  # also one that was not tried


async def migrate(
    database: Database, buckets: int | None = None, on_citus: OnCitus = OnCitus.NO
) -> dict[str, list[str]]:
    """Apply the missing migrations; returns the names of their files by schema.

    `buckets`: make an installation with so many. Of one that exists, all buckets are migrated. Raises OperatorFault for
    another number, and SchemaFault if a bucket is missing.
    """
    if buckets is None:
        with suppress(HasBuckets):
            return {database.schema: await migrations.migrate(database)}
    connection = await connect(database, name="noetl-broker migrate", command_timeout=None, takes="writes")
    try:
        await connection.execute("set statement_timeout = 0; set lock_timeout = 0")
        await connection.execute(sql("lock_migrations"))
        at_nodes = await _is_on_citus(connection, on_citus)
        count = await _begin(connection, database, buckets)
        if at_nodes:
            await connection.execute(sql("share_installation"))
        done = {}
        for number, bucket in enumerate(buckets_of(replace(database, at_coordinator=at_nodes), count)):
            done[bucket.schema] = await migrations.migrate(bucket, bucket=number, buckets=count, on_citus=at_nodes)
            await connection.execute(sql("record_bucket"), number, bucket.schema)
        await _route(connection, count)
    except asyncpg.InsufficientPrivilegeError as error:
        message = f"the role may not change the schema: {error}; migrate as the owner of the database"
        raise PermissionFault(message) from error
    finally:
        await connection.close()
    return done


async def _is_on_citus(connection: Connection, wanted: OnCitus) -> bool:
    """Whether the buckets are on nodes of Citus. Raises OperatorFault for a wish that contradicts what is there."""
    if await count_buckets(connection) is not None:
        there = await is_on_citus(connection)
        if wanted is not OnCitus.NO and not there:
            raise OperatorFault(
                f"the installation {schema_of(connection)} was made without --citus, and its buckets cannot be moved to"
                " nodes: make another one under another name (--schema)"
            )
        return there
    if wanted is OnCitus.NO:
        return False
    await citus.check(connection, any_version=wanted is OnCitus.ANY_VERSION)
    return True


async def _begin(connection: Connection, database: Database, buckets: int | None) -> int:
    """Make the schema of the installation, or check it; returns the number of its buckets."""
    name, count = database.schema, await count_buckets(connection)
    if count is None:
        if buckets is None or not FEWEST <= buckets <= MOST:
            raise OperatorFault(f"--buckets is {buckets}: an installation has {FEWEST} to {MOST} buckets")
        check_schema_name(database.bucket(buckets - 1).schema)
        if rendered(name, "other") != name:  # a call for all buckets renders the name of a bucket, too
            raise OperatorFault(f"the name {name} means something else in our SQL: give the installation another name")
        if await connection.fetchval(sql("has_broker")):
            raise OperatorFault(
                f"the schema {name} has a broker without buckets, and its executions cannot be moved into buckets: make"
                f" the installation under another name, noetl-broker migrate --schema NAME --buckets {buckets}"
            )
        await _route(connection, buckets)
        return buckets
    if buckets not in {None, count}:
        raise OperatorFault(
            f"the installation {name} has {count} buckets, for ever: leave --buckets out, or make another installation"
            f" with {buckets} buckets under another name (--schema)"
        )
    gone = [f"{name}_{row['number']}" for row in await connection.fetch(sql("list_buckets")) if not row["is_there"]]
    if gone:
        raise SchemaFault(
            f"the bucket {', '.join(gone)} of the installation {name} is missing: restore the schema from a backup; an"
            " empty one would have lost its executions"
        )
    return count


async def _route(connection: Connection, count: int) -> None:
    """Apply `installation.sql`: the functions that route, of the buckets that are there."""
    text = (migrations_folder() / "installation.sql").read_text(encoding="utf-8")
    async with transaction(connection, begins_within=None):
        await connection.execute(text.replace("{buckets}", str(count)))


async def create_roles(database: Database) -> None:
    """Create the roles, or update their rights; the schema must exist. All buckets have the same roles."""
    try:
        await migrations.create_roles(database)
    except HasBuckets as found:
        async with session(database, name="migrate", is_checked=False) as connection:
            at_nodes = await _is_on_citus(connection, OnCitus.NO)
            for bucket in buckets_of(replace(database, at_coordinator=at_nodes), found.count):
                await migrations.create_roles(bucket)
            await connection.execute(sql("grant_installation"))


async def status(database: Database) -> dict[str, list[migrations.Applied]]:
    """Each migration by schema, and whether it is applied."""
    try:
        return {database.schema: await migrations.status(database)}
    except HasBuckets as found:
        return {bucket.schema: await migrations.status(bucket) for bucket in buckets_of(database, found.count)}
