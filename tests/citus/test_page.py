"""docs/how-to/scaling.md about Citus: its commands run, failures are those it names, and `doctor` sees them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from noetl_broker.errors import DatabaseFault
from noetl_broker.store.admin.doctor_of_buckets import examine_all
from noetl_broker.store.connect import migrations
from noetl_broker.store.connect.buckets import buckets_of
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.queries import load
from tests.brokers import rows, start, until_ended, value
from tests.citus.clusters import BUCKETS, Cluster
from tests.cli.conftest import Command
from tests.docs.pages import code_blocks, read_page
from tests.installations import register_everywhere, serving

pytestmark = pytest.mark.slow

BODY = "workflow:\n- {step: start, next: end}\n- {step: end}\n"
OF_THE_INSTALLATION = {"write_homes", "bucket_of_start", "share_installation", "list_buckets", "record_bucket"}
# They run at the coordinator, and through Citus.
CHANGE_TABLES = {"add_partition", "archive_rows", "attach_partition", "bound_partition", "executions_without_period"}


async def test_the_statements_of_the_page_run(cluster: Cluster) -> None:
    """A start in a transaction, calls on any node, and a node that is added."""
    _, high = cluster.nodes[:2]
    await register_everywhere(cluster.installation, BODY, BUCKETS)
    await cluster.remove(high)
    in_transaction, calls, moves, restore_point = code_blocks(read_page("scaling").partition("## Citus\n")[2], "sql")
    connection = await asyncpg.connect(cluster.installation.dsn)
    await connection.execute("create schema app; create table app.orders (id int)")
    await connection.execute(in_transaction.replace("noetl_3", "noetl_1").replace("orders/ship", "story"))
    for call in filter(str.strip, calls.split(";\n")):
        await connection.execute(call.replace("noetl_3", "noetl_1").replace("orders/ship", "story"))
    await connection.execute("begin")
    with pytest.raises(asyncpg.PostgresError) as refused:
        await connection.execute("select noetl_1.start_execution('story')")
    assert refused.value.sqlstate == "NB503"
    await connection.execute("rollback")
    for statement in filter(
        str.strip, moves.replace("'node3.example.com', 5432", f"'{high[0]}', {high[1]}").split(";\n")
    ):
        await connection.execute(statement.replace("noetl_3", "noetl_1"))
    await connection.execute(restore_point)
    await connection.close()
    async with serving(cluster.installation, BUCKETS):
        for bucket in buckets_of(cluster.installation, BUCKETS):
            await until_ended(bucket)
    counts = [
        await value(one, "select count(*) from noetl.execution") for one in buckets_of(cluster.installation, BUCKETS)
    ]
    assert sum(counts) == 3
    assert counts[1] >= 2


async def test_a_node_that_is_away_stops_its_own_bucket_only(cluster: Cluster, tmp_path: Path) -> None:
    """The error names both, and the other bucket works."""
    first, second = buckets_of(cluster.installation, BUCKETS)
    host, port = await cluster.node_of(second.schema)
    away = replace(cluster.installation, nodes=((f"{host}:{port}", "127.0.0.1:1"),))
    _, unreachable = buckets_of(away, BUCKETS)
    with pytest.raises(DatabaseFault, match=rf"{port}, the node of the bucket noetl_1, does not answer"):
        await connect(unreachable, name="test")
    problems = {found.check: found.says for found in await examine_all(away) if found.state == "problem"}
    assert "noetl_1" in problems["bucket"]
    await register_everywhere(cluster.installation, BODY, BUCKETS)
    command = Command(tmp_path, cluster.installation.dsn)
    nodes = json.dumps([f"{host}:{port}=127.0.0.1:1"])
    for _ in range(5):  # without a key, so it may live in either
        started = await asyncio.to_thread(command, "start", "story", NOETL_BROKER_NODES=nodes)
        assert started.exit_code == 0, started.stderr
    async with serving(cluster.installation, BUCKETS):
        await start(first)
        await until_ended(first)


async def test_doctor_looks_at_clocks_and_orphaned_shards(cluster: Cluster) -> None:
    """All is well on a new cluster."""
    found = {each.check: each.state for each in await examine_all(cluster.installation)}
    assert (found["clocks"], found["orphaned shards"]) == ("ok", "ok")


async def test_every_statement_prepares_at_a_node(cluster: Cluster) -> None:
    """Those of the installation's own tables aside, and what only a NoETL server has."""
    first, _ = buckets_of(cluster.installation, BUCKETS)
    connection = await connect(first, name="test")
    faults = {}
    for name, text in load().items():
        try:
            await connection.prepare(text)
        except asyncpg.PostgresSyntaxError as error:
            assert "multiple commands" in str(error)  # noqa: PT017 - that is why
        except asyncpg.PostgresError as error:
            faults[name] = str(error)
    await connection.close()
    assert faults.keys() - OF_THE_INSTALLATION == {"reap_ended_jobs"}


async def test_migrate_refuses_what_it_cannot_do(cluster: Cluster, tmp_path: Path) -> None:
    """An untried Citus, nodes for an installation without them, another number of buckets; again is allowed."""
    command = Command(tmp_path, cluster.installation.dsn)
    again = await asyncio.to_thread(command, "migrate", "--roles")
    assert again.output.startswith("the schema is up to date")
    plain = await asyncio.to_thread(command, "migrate", "--schema", "plain", "--buckets", "2")
    assert plain.exit_code == 0
    periods = await asyncio.to_thread(
        command, "archive", "--schema", "plain", "--older-than", "1d", "--dry-run", "--json"
    )
    assert [period["partitions"] for period in json.loads(periods.output)["buckets"]["plain_0"]["periods"]] == [12, 12]
    calls = [
        ("migrate --buckets 3 --citus", 2, "has 2 buckets, for ever"),
        ("migrate --schema plain --buckets 2 --citus", 2, "was made without --citus"),
    ]
    await asyncio.to_thread(command.refuses, calls)
    await cluster.execute("update pg_extension set extversion = '12.1-1' where extname = 'citus'")
    calls = [("migrate --schema new --buckets 2 --citus", 2, "Citus 12.1-1 was not tried")]
    await asyncio.to_thread(command.refuses, calls)


async def test_all_functions_but_those_that_change_tables_name_shards(cluster: Cluster) -> None:
    """Also if the table is made by a later file."""
    found = await cluster.fetch(
        r"""select p.proname from pg_proc p join pg_dist_shard s on true join pg_class c on c.oid = s.logicalrelid
        where p.pronamespace = 'noetl_1'::regnamespace and c.relnamespace = p.pronamespace
          and p.prosrc ~* ('\m(from|join|into|update|using)\s+noetl_1\.' || c.relname || '(?![\w(])')""",
        at=await cluster.node_of("noetl_1"),
    )
    assert {name for (name,) in found} == CHANGE_TABLES


async def test_migrate_again_changes_nothing(cluster: Cluster) -> None:
    """Every file is recorded, and a bucket names the node that it is on."""
    for bucket in buckets_of(cluster.installation, BUCKETS):
        names = [name for (name,) in await rows(bucket, "select name from noetl.schema_version order by version")]
        assert names[:2] == ["citus.sql", "bucket.sql"]
        assert len(names) == len(migrations.migrations()) + 2
