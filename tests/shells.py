"""A bucket as on a node of Citus, on plain Postgres: a shard beside each table, which is then a shell that stays empty.

The program finds the shards in tables with the names of Citus' catalog, and names them in all its SQL. A statement that
names a table itself reads nothing, or leaves rows in a shell.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import sql

from noetl_broker.store.connect import citus, migrations
from noetl_broker.store.connect.connection import connect
from tests.postgres import Database, Server

# Two tables have no shard: `migrate` and `add_partition` write them through Citus.
OF_CITUS = ("schema_version", "period")
FIRST_SHARD = 102_000

CATALOG = """
set allow_system_table_mods = on;
create table pg_catalog.pg_dist_local_group (groupid int);
insert into pg_dist_local_group values (1);
create table pg_catalog.pg_dist_node (groupid int, nodename text, nodeport int, noderole text);
insert into pg_dist_node values (1, host(inet_server_addr()), inet_server_port(), 'primary');
create table pg_catalog.pg_dist_shard (logicalrelid regclass, shardid bigint);
create table pg_catalog.pg_dist_placement (shardid bigint, groupid int);
create table pg_catalog.pg_dist_partition (logicalrelid regclass);
grant select on pg_dist_local_group, pg_dist_node, pg_dist_shard, pg_dist_placement, pg_dist_partition to public;
create sequence pg_catalog.clock_seq;
create function pg_catalog.citus_get_node_clock() returns text language sql volatile security definer as $$
  select format('(%s,%s)', floor(extract(epoch from clock_timestamp()) * 1000)::bigint, nextval('clock_seq') & 16383)
$$;
create function pg_catalog.create_distributed_function(of regprocedure, colocate_with text) returns void
language sql as '';
create function pg_catalog.lock_shard_metadata(int, bigint[]) returns void language sql volatile as $$
  select pg_advisory_xact_lock_shared($2[1])
$$;
"""
TABLES = """
select c.relname::text as name, c.relkind = 'p' as is_partitioned
from pg_dist_partition d
join pg_class c on c.oid = d.logicalrelid
order by 1
"""
DISTRIBUTE = """
insert into pg_dist_partition
select c.oid
from pg_class c
where c.relnamespace = $1::text::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
  and c.relname <> all($2::text[])
"""
TRIGGERS = """
select pg_get_triggerdef(t.oid)
from pg_trigger t
where t.tgrelid = $1::text::regclass and not t.tgisinternal
"""
KEYS = "select conname::text from pg_constraint where conrelid = $1::text::regclass and contype = 'p'"
VIEWS = """
select c.relname::text as name, pg_get_viewdef(c.oid) as text
from pg_class c
where c.relnamespace = $1::text::regnamespace and c.relkind = 'v'
"""


async def make_shards(bucket: Database, number: int, buckets: int) -> None:
    """Pin the functions and views of a bucket, which is migrated, to shards that are made here."""
    connection = await connect(bucket, name="test")
    try:
        async with connection.transaction():
            await connection.execute(CATALOG)
            await connection.execute(DISTRIBUTE, bucket.schema, OF_CITUS)
            guard = migrations.on_node().numbered(number, buckets)
            await citus.apply(connection, guard.text)
            names = {
                row["name"]: await _make_shard(connection, bucket.schema, row["name"], shard, row["is_partitioned"])
                for shard, row in enumerate(await connection.fetch(TABLES), FIRST_SHARD)
            }
            files = (*migrations.migrations(), migrations.of_bucket(), guard)
            await citus.pin(connection, [file.numbered(number, buckets).text for file in files])
            for view in await connection.fetch(VIEWS, bucket.schema):
                text = re.sub(
                    rf"\b{bucket.schema}\.(\w+)\b(?!\()",
                    lambda found: f"{bucket.schema}.{names.get(found[1], found[1])}",
                    view["text"],
                )
                await connection.execute(f"create or replace view {bucket.schema}.{view['name']} as {text}")
    finally:
        await connection.close()


async def _make_shard(connection: Any, schema: str, name: str, number: int, is_partitioned: bool) -> str:
    shard = f"{name}_{number}"
    partitioned = " partition by range (execution_id)" if is_partitioned else ""
    await connection.execute(f'create table {schema}.{shard} (like {schema}."{name}" including all){partitioned}')
    if is_partitioned:
        await connection.execute(f"create table {schema}.{name}_default_{number} partition of {schema}.{shard} default")
    for key in await connection.fetch(KEYS, f"{schema}.{shard}"):
        await connection.execute(f'alter table {schema}.{shard} rename constraint "{key[0]}" to {name}_pkey_{number}')
    for trigger in await connection.fetch(TRIGGERS, f'{schema}."{name}"'):
        for written in (f" ON {schema}.{name} ", f' ON {schema}."{name}" '):
            if written in trigger[0]:
                await connection.execute(trigger[0].replace(written, f" ON {schema}.{shard} "))
    await connection.execute(
        f"""insert into pg_dist_shard values ('{schema}."{name}"', {number});
        insert into pg_dist_placement values ({number}, 1)"""
    )
    return shard


def keep_shards_here(session: psycopg.Connection[Any], server: Server) -> None:
    """Prepare a template on a cluster: its coordinator is its only node, so a copy of it works as well."""
    session.execute("create extension citus")
    session.execute("select citus_set_coordinator_host(%s, %s)", (server.host, server.port))
    session.execute("select citus_set_node_property(%s, %s, 'shouldhaveshards', true)", (server.host, server.port))


def keep_citus_out(maintenance: psycopg.Connection[Any], database: str) -> None:
    """End the daemon of Citus in a database, which is then to be copied or dropped only."""
    maintenance.execute(sql.SQL("alter database {} allow_connections false").format(sql.Identifier(database)))
    maintenance.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", (database,))


async def filled_shells(bucket: Database) -> dict[str, int]:
    """Return the shells that have rows, and how many: each is a statement that names no shard."""
    connection = await connect(bucket, name="test")
    try:
        shells = [row["name"] for row in await connection.fetch("select logicalrelid::text as name from pg_dist_shard")]
        counts = {shell: await connection.fetchval(f"select count(*) from {shell}") for shell in shells}
    finally:
        await connection.close()
    return {shell: count for shell, count in counts.items() if count}
