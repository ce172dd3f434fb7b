"""Archiving executions one by one, beside events that come for them at that moment."""

from __future__ import annotations

import asyncio

from noetl_broker.store import archive
from noetl_broker.store.migrate import migrations
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
EVENTS = "select count(*) from {}.event where execution_id = $1"


async def ended_outside(database: Database, *, count: int) -> list[int]:
    """Executions that have ended, with rows that no period has partitions for."""
    await register(database, BODY)
    await set_clock(database, LONG_AGO)
    ids = await start(database, count=count)
    await drain(database)
    await complete_jobs(database, {"n": 1})
    await drain(database)
    return ids


async def test_an_event_that_came_meanwhile_keeps_its_execution_back(database: Database) -> None:
    """The others leave; it follows when the event is read."""
    late, *others = await ended_outside(database, count=3)
    async with session(database) as connection:
        [over] = [batch async for batch in archive.outside_periods(connection, 0.0)]
        await execute(database, LATE, late)
        moved = await archive.archive_rows(connection, over)
        assert (over, moved.executions) == ([late, *others], 2)
        assert await value(database, EVENTS.format("noetl"), late) > 1
        assert await value(database, EVENTS.format("noetl_archive"), late) == 0
        await drain(database)
        assert await broken_invariants(database) == {}
        [over] = [batch async for batch in archive.outside_periods(connection, 0.0)]
        assert (over, (await archive.archive_rows(connection, over)).executions) == ([late], 1)
    assert await value(database, "select count(*) from noetl.event") == 0


async def test_an_event_that_comes_while_the_rows_move_stays_with_its_mail(database: Database) -> None:
    """It commits after the move has begun and before the events are deleted; a lock holds that moment open."""
    [late] = await ended_outside(database, count=1)
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


async def test_mail_that_is_set_aside_keeps_its_execution_too(database: Database) -> None:
    """Whoever mends what it failed for and tries again must find the event."""
    [late] = await ended_outside(database, count=1)
    async with session(database) as connection:
        [over] = [batch async for batch in archive.outside_periods(connection, 0.0)]
        await execute(database, LATE, late)
        await execute(
            database,
            """
            with mail as (delete from noetl.inbox returning *)
            insert into noetl.dead_letter (execution_id, event_id, reason)
            select execution_id, event_id, 'a fault' from mail""",
        )
        assert await archive.archive_rows(connection, over) == (0, 0)
    assert await value(database, EVENTS.format("noetl"), late) > 1


async def test_a_table_that_got_a_column_since_others_left_it_is_archived_too(database: Database) -> None:
    """Each row keeps what it had."""
    [first] = await ended_outside(database, count=1)
    async with session(database) as connection:
        await archive.archive_rows(connection, [first])
        await execute(database, "alter table noetl.event add column trace text not null default 'none'")
        [second] = await start(database)
        await drain(database)
        await complete_jobs(database)
        await drain(database)
        await execute(database, "update noetl.event set trace = 'seen'")
        assert (await archive.archive_rows(connection, [second])).executions == 1
    traces = "select distinct execution_id, trace from noetl_archive.event order by 1"
    assert await rows(database, traces) == [(first, "none"), (second, "seen")]


async def test_rows_leave_and_come_back_where_all_tables_are_published(database: Database) -> None:
    """Postgres refuses to delete from a published table whose rows nothing identifies."""
    ids = await ended_outside(database, count=1)
    await execute(database, "create publication everything for all tables")
    async with session(database) as connection:
        assert (await archive.archive_rows(connection, ids)).executions == 1
        await add_period(database, LONG_AGO)
        for period in await archive.list_periods(connection, 0.0):
            if period.is_due:
                await archive.archive_period(connection, period, 0.0)
        await archive.restore_period(connection, LONG_AGO)
    assert await value(database, "select count(*) from noetl.transition") > 0
    assert await value(database, "select count(*) from noetl_archive.transition") == 0


async def test_whatever_is_deleted_or_changed_has_an_identity(database: Database) -> None:
    """Of all our tables, and of the partitions that are made later."""
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
