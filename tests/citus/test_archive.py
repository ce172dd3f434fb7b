"""Archive: periods of a bucket on a node leave and return, with the DSN of the coordinator."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.brokers import until_ended, value
from tests.citus.clusters import BUCKETS, Cluster
from tests.cli.conftest import Command
from tests.installations import register_everywhere, serving
from tests.periods import LONG_AGO, add_period
from tests.postgres import Database

pytestmark = pytest.mark.slow

BODY = "workflow:\n- {step: start, next: end}\n- {step: end}\n"
START = """
    insert into noetl.event (execution_id, event_type, context)
    values (noetl.first_id_at($1::text::timestamptz) + 1, 'execution_start', '{"path": "story"}')
    returning execution_id"""


async def test_a_period_is_archived_moved_with_its_bucket_and_restored(cluster: Cluster, tmp_path: Path) -> None:
    """An execution without a period goes with it. A bucket that is named itself is found on its node too."""
    bucket = cluster.installation.bucket(1)
    tables = replace(bucket, at_coordinator=True)
    await register_everywhere(cluster.installation, BODY, BUCKETS)
    await add_period(tables, LONG_AGO)
    inside, outside = [await value(tables, START, day) for day in ("2025-01-15Z", "2024-06-15Z")]
    async with serving(cluster.installation, BUCKETS):
        await until_ended(bucket)
    command = Command(tmp_path, cluster.installation.dsn)
    archived = await asyncio.to_thread(command, "archive", "--older-than", "0s")
    assert (archived.exit_code, archived.output.count("left now")) == (0, 1), archived.stderr
    assert "outside of periods: 1 execution," in archived.output
    assert await events_of(bucket) == set()
    old = await cluster.node_of(bucket.schema)
    await cluster.move(bucket.schema, next(node for node in cluster.nodes if node != old))
    refused = await asyncio.to_thread(command, "events", str(inside))
    assert "its history is in the schema noetl_1;" in refused.stderr
    restored = await asyncio.to_thread(command, "archive", "--restore", LONG_AGO, "--schema", "noetl_1")
    assert restored.output == f"period {LONG_AGO} is back, 12 tables\n", restored.stderr
    assert await events_of(bucket) == {inside}
    assert await value(bucket, "select execution_id from noetl.archived") == outside
    named = replace(bucket, installation=None)
    assert await value(named, "select inet_server_port()") == (await cluster.node_of("noetl_1"))[1]


async def events_of(database: Database) -> set[int]:
    """Return the executions that have events in a bucket."""
    return {*await value(database, "select coalesce(array_agg(execution_id), '{}') from noetl.event")}
