"""Archiving of single executions while events for them arrive."""

from __future__ import annotations

import asyncio

from noetl_broker.store.admin import archive
from noetl_broker.store.connect.migrations import migrations
from tests.brokers import (
    PATIENCE_SECONDS,
    broken_invariants,
    complete_jobs,
    drain,
    execute,
    register,
    rows,
    start,
    value,
)
from tests.periods import BODY, LONG_AGO, add_period, set_clock
from tests.postgres import Database
from tests.sessions import blocked, session

LATE = "insert into noetl.event (execution_id, event_type, node_name) values ($1, 'action_completed', 'work')"
EVENTS = "select count(*) from {} where execution_id = $1"


async def ended_without_partitions(database: Database, *, count: int) -> list[int]:
    """Return executions that have ended and whose rows are in no partition of a period."""
    await register(database, BODY)
    await set_clock(database, LONG_AGO)
    ids = await start(database, count=count)
    await drain(database)
    await complete_jobs(database, {"n": 1})
    await drain(database)
    return ids


async def test_an_execution_with_unread_mail_or_a_dead_letter_is_not_archived(database: Database) -> None:
    """The others are archived. It follows when the event has a turn; `dead-letters retry` needs the event."""
    late, *others = await ended_without_partitions(database, count=3)
    set_aside = """
        with mail as (delete from noetl.inbox returning *)
        insert into noetl.dead_letter (execution_id, event_id, reason)
        select execution_id, event_id, 'a fault' from mail"""
    async with session(database) as connection:
        [over] = [batch async for batch in archive.outside_periods(connection, 0.0)]
        await execute(database, LATE, late)
        moved = await archive.archive_rows(connection, over)
        assert (over, moved.executions) == ([late, *others], 2)
        await execute(database, set_aside)
        assert await archive.archive_rows(connection, [late]) == (0, 0)
        assert await value(database, EVENTS.format("noetl.event"), late) > 1
        assert await value(database, EVENTS.format("noetl_archive.event_without_period"), late) == 0
        await execute(database, "delete from noetl.dead_letter")
        assert await value(database, "select noetl.put_back($1)", late) == 1
        await drain(database)
        assert await broken_invariants(database) == {}
        [over] = [batch async for batch in archive.outside_periods(connection, 0.0)]
        assert (over, (await archive.archive_rows(connection, over)).executions) == ([late], 1)
    assert await value(database, "select count(*) from noetl.event") == 0


async def test_a_late_event_follows_its_execution_into_the_archive(database: Database) -> None:
    """With its turn. The execution is listed once."""
    [late] = await ended_without_partitions(database, count=1)
    async with session(database) as connection:
        await archive.archive_rows(connection, [late])
        await execute(database, LATE, late)
        await drain(database)
        assert await archive.archive_rows(connection, [late]) == (1, 2)
    assert await rows(database, "select execution_id from noetl.archived") == [(late,)]


async def test_an_event_that_arrives_during_the_move_keeps_its_mail(database: Database) -> None:
    """It commits after the move began and before the events are deleted."""
    [late] = await ended_without_partitions(database, count=1)
    async with session(database) as connection, session(database) as producer:
        await producer.execute("begin")
        await producer.execute("lock table noetl_history.event_default in share row exclusive mode")
        moving = asyncio.create_task(archive.archive_rows(connection, [late]))
        await blocked(producer)
        await producer.execute(LATE, late)
        await producer.execute("commit")
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await moving == (0, 0)
    await drain(database)
    assert await value(database, "select outcome from noetl.turn order by turn desc limit 1") == "after_end"
    assert await broken_invariants(database) == {}


async def test_archiving_adds_columns_that_the_archive_lacks(database: Database) -> None:
    """Each row keeps its values."""
    [first] = await ended_without_partitions(database, count=1)
    async with session(database) as connection:
        await archive.archive_rows(connection, [first])
        await execute(database, "alter table noetl.event add column trace text not null default 'none'")
        [second] = await start(database)
        await drain(database)
        await complete_jobs(database)
        await drain(database)
        await execute(database, "update noetl.event set trace = 'seen'")
        assert (await archive.archive_rows(connection, [second])).executions == 1
    traces = "select distinct execution_id, trace from noetl_archive.event_without_period order by 1"
    assert await rows(database, traces) == [(first, "none"), (second, "seen")]


async def test_archive_and_restore_work_with_a_publication_of_all_tables(database: Database) -> None:
    """Postgres refuses to delete from a published table without a replica identity."""
    ids = await ended_without_partitions(database, count=1)
    await execute(database, "create publication everything for all tables")
    async with session(database) as connection:
        assert (await archive.archive_rows(connection, ids)).executions == 1
        await add_period(database, LONG_AGO)
        for period in await archive.list_periods(connection, 0.0):
            if period.is_due:
                await archive.archive_period(connection, period, 0.0)
        await archive.restore_period(connection, LONG_AGO)
    assert await value(database, "select count(*) from noetl.transition") > 0
    assert await value(database, "select count(*) from noetl_archive.transition_without_period") == 0


async def test_every_table_has_a_replica_identity(database: Database) -> None:
    """New partitions have one too."""
    await execute(database, "drop table noetl_history.transition_default")
    for migration in migrations():
        await execute(database, migration.text)
    name = await value(database, "select max(name) from noetl.period")
    await execute(database, f"drop table noetl_history.transition_{name}")
    await execute(database, "select noetl.add_partition(30)")
    assert (
        await rows(
            database,
            """
        select c.oid::regclass::text from pg_class c
        where c.relnamespace in ('noetl'::regnamespace, 'noetl_history'::regnamespace) and c.relkind = 'r'
          and c.relreplident = 'd'
          and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)""",
        )
        == []
    )
