"""Old periods are dropped with all that hangs on them; what still needs its rows stays, with its family."""

from __future__ import annotations

import asyncio

import pytest

from noetl_broker.errors import NotFoundFault
from noetl_broker.store.admin import archive, retention
from noetl_broker.store.admin.doctor import examine
from noetl_broker.store.admin.executions import find_execution
from noetl_broker.store.connect.buckets import buckets_of
from tests.brokers import (
    PATIENCE_SECONDS,
    broken_invariants,
    complete_jobs,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    until_ended,
    value,
)
from tests.periods import BODY, LONG_AGO, add_period, ended_in, partitions, set_clock
from tests.postgres import Database
from tests.roles import logins
from tests.sessions import refused, session
from tests.store.test_archive import archive_all
from tests.store.test_buckets import COUNT

PERIOD = "select dropping_at is not null, dropped_at is not null, kept, held_by from noetl.period where name = $1"
TABLES_WITH_EXECUTIONS = """
    select c.table_schema || '.' || c.table_name
    from information_schema.columns c
    join information_schema.tables t using (table_schema, table_name)
    where c.column_name = 'execution_id' and t.table_type = 'BASE TABLE' and starts_with(c.table_schema, 'noetl')"""
FORK = """select noetl.fork_execution($1, '{"results": []}')"""


async def drop(database: Database, keep: float | None = 0.0) -> list[retention.DropOutcome]:
    """Drop what is old enough."""
    async with session(database) as own:
        return [outcome async for outcome in retention.drop_old(own, keep)]


async def holding(database: Database, execution_id: int) -> set[str]:
    """The tables that have rows of an execution."""
    names = [name for (name,) in await rows(database, TABLES_WITH_EXECUTIONS)]
    counts = [
        await value(database, f"select count(*) from {name} where execution_id = $1", execution_id) for name in names
    ]
    return {name for name, count in zip(names, counts, strict=True) if count}


@pytest.mark.parametrize("archived", [False, True])
async def test_an_old_period_is_dropped_with_all_rows_of_its_executions(database: Database, *, archived: bool) -> None:
    """Only the period stays, and says so. The login of a daemon has the rights."""
    dropped = await ended_in(database, LONG_AGO, count=3)
    if archived:
        await archive_all(database)
    assert await holding(database, dropped[0])
    async with logins(database) as those:
        assert await drop(those.broker) == [retention.DropOutcome(LONG_AGO, 3)]
    for schema in ("noetl_history", "noetl_archive"):
        assert await partitions(database, schema, LONG_AGO) == []
    assert [await holding(database, execution_id) for execution_id in dropped] == [set()] * 3
    assert await rows(database, PERIOD, LONG_AGO) == [(True, True, [], None)]
    assert await drop(database) == []
    async with session(database) as own:
        for call in (
            "cancel_execution($1)",
            "undo_execution($1)",
            "put_back($1)",
            """fork_execution($1, '{"results": []}')""",
        ):
            async with refused("NB404", f"execution {dropped[0]} was dropped on 2"):
                await own.fetchval(f"select noetl.{call}", dropped[0])
        with pytest.raises(NotFoundFault, match="was dropped on 2"):
            await find_execution(own, dropped[0])
        with pytest.raises(NotFoundFault, match="was dropped on 2"):
            await archive.restore_period(own, LONG_AGO)
        late = "insert into noetl.event (execution_id, event_type, node_name) values ($1, 'action_completed', 'work')"
        await own.execute(late, dropped[0])
        await drain(database)
        outcome = "select outcome from noetl.turn where execution_id = $1"
        assert await own.fetchval(outcome, dropped[0]) == "unknown_execution"
        assert {period.name: period.dropped_at is not None for period in await archive.list_periods(own, 0.0)}[LONG_AGO]


async def test_what_needs_its_rows_moves_to_the_default_partition_with_its_family(database: Database) -> None:
    """A live execution goes on, with ended ones above and below. All are dropped when they are old enough."""
    gone, parent, child, grandchild = await ended_in(database, LONG_AGO, count=4)
    [living] = await start(database)
    await drain(database)
    for above, below in ((parent, living), (living, child), (child, grandchild)):
        adopt = "update noetl.execution set parent_execution_id = $1 where execution_id = $2"
        await execute(database, adopt, above, below)
    kept = [parent, child, grandchild, living]
    before = [await holding(database, execution_id) for execution_id in kept]
    assert await drop(database) == [retention.DropOutcome(LONG_AGO, 1, 4)]
    assert await holding(database, gone) == set()
    part = f"_{LONG_AGO}"
    assert [await holding(database, execution_id) for execution_id in kept] == [
        {name.replace(part, "_default") for name in names} for names in before
    ]
    assert await value(database, "select count(*) from noetl.inbox") == 0  # moved events are no new mail
    await complete_jobs(database)
    await drain(database)
    await until_ended(database)
    assert await broken_invariants(database) == {}
    assert await drop(database, 86_400.0) == []  # they ended only lately
    assert await drop(database) == [retention.DropOutcome("", 4)]
    assert [await holding(database, execution_id) for execution_id in kept] == [set()] * 4


@pytest.mark.parametrize(
    "limit, reason",
    [
        ("MOST_KEPT", "1 executions or more hold it with their families, for example execution {}: it runs"),
        ("MOST_ROWS", "1 executions hold it with more than 1 rows in a table, for example execution {}: it runs"),
    ],
)
async def test_a_period_with_too_much_to_move_stays(
    database: Database, monkeypatch: pytest.MonkeyPatch, limit: str, reason: str
) -> None:
    """`doctor` says why. An undo, a fork or a retry may begin in it, and the next call looks again."""
    [ended] = await ended_in(database, LONG_AGO)
    [living] = await start(database)
    await drain(database)
    monkeypatch.setattr(retention, limit, 1)
    held_by = reason.format(living)
    assert await drop(database) == [retention.DropOutcome(LONG_AGO, held_by=held_by)]
    assert await rows(database, PERIOD, LONG_AGO) == [(False, False, None, held_by)]
    [found] = [finding for finding in await examine(database) if finding.check == "kept periods"]
    assert (found.state, found.says) == ("notice", f"1 cannot be dropped, the oldest is {LONG_AGO}: {held_by}")
    assert await value(database, FORK, ended)
    monkeypatch.undo()
    assert await drop(database) == [retention.DropOutcome(LONG_AGO, 1, 2)]  # the fork is of that day, too


async def test_the_second_look_drops_nothing_that_has_begun_since_the_first(database: Database) -> None:
    """An undo, mail, or an execution that lives."""
    await register(database, BODY)
    gone, undoing, mailed = await start(database, count=3)
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    [lives] = await start(database)
    await drain(database)
    await execute(database, "update noetl.execution set undo_status = 'undoing' where execution_id = $1", undoing)
    await execute(database, "insert into noetl.event (execution_id, event_type) values ($1, 'execution_pause')", mailed)
    assert await value(database, "select noetl.drop_executions($1)", [gone, undoing, mailed, lives]) == 1
    left = await rows(database, "select execution_id from noetl.execution order by 1")
    assert left == [(undoing,), (mailed,), (lives,)]


async def test_no_undo_or_fork_begins_in_a_marked_period(database: Database) -> None:
    """The mark waits for those that have begun. Without the setting `keep`, the mark is removed."""
    [ended] = await ended_in(database, LONG_AGO)
    mark = "select noetl.mark_period($1, 'drop')"
    async with session(database) as own, session(database) as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(FORK, ended)
        async with refused("55P03"):
            await own.execute(mark, LONG_AGO)
        await transaction.rollback()
        await own.execute(mark, LONG_AGO)
        for call in ("undo_execution($1)", """fork_execution($1, '{"results": []}')"""):
            async with refused("NB409", f"execution {ended} is about to be dropped, with its period {LONG_AGO}"):
                await own.fetchval(f"select noetl.{call}", ended)
        assert await drop(database, None) == []
        assert await own.fetchval(FORK, ended)


async def test_dropping_goes_on_after_an_interruption(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without the setting `keep`: half of the rows are gone already."""
    await ended_in(database, LONG_AGO, count=2)

    async def fail(*_arguments: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(retention, "_finish", fail)
    with pytest.raises(ConnectionError):
        await drop(database)
    monkeypatch.undo()
    assert await partitions(database, "noetl_archive", LONG_AGO) == ["event"]
    assert await drop(database, None) == [retention.DropOutcome(LONG_AGO, 2)]
    assert await partitions(database, "noetl_archive", LONG_AGO) == []


async def test_one_session_drops_or_archives_at_a_time(database: Database) -> None:
    """The second drops nothing."""
    await ended_in(database, LONG_AGO)
    async with session(database) as own:
        await archive.lock_archiving(own)
        assert await drop(database) == []
    assert await drop(database) == [retention.DropOutcome(LONG_AGO, 1)]


async def test_an_idempotency_key_outlives_its_execution(database: Database) -> None:
    """Until it is older than `keep_keys`. Keys of executions that are kept stay."""
    await register(database, BODY)
    await add_period(database, LONG_AGO)
    await set_clock(database, LONG_AGO)
    begin = "select noetl.start_execution('story', idempotency_key => $1)"
    [[first], [other]] = [await rows(database, begin, key) for key in ("once", "live")]
    await drain(database)
    await value(database, "select noetl.cancel_execution($1)", first[0])
    await drain(database)
    assert await drop(database) == [retention.DropOutcome(LONG_AGO, 1, 1)]
    place = retention.KeyPlace()
    async with session(database) as own:
        assert await retention.sweep_keys(own, 86_400.0, place) == 0
        assert await own.fetchval(begin, "once") == first[0]
        async with refused("NB409", "was started with another payload"):
            await own.fetchval("""select noetl.start_execution('story', '{"a": 1}', idempotency_key => 'once')""")
        assert await retention.sweep_keys(own, 0.0, place) == 1
        assert await own.fetchval(begin, "once") != first[0]
        assert await own.fetchval(begin, "live") == other[0]


async def test_a_daemon_drops_by_its_settings(database: Database) -> None:
    """`keep` counts from the end of each execution."""
    [execution_id] = await ended_in(database, LONG_AGO)
    await execute(database, "update noetl.execution set ended_at = started_at - interval '100 days'")
    async with running(database, keep="90d"):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await rows(database, "select from noetl.execution where execution_id = $1", execution_id):
                continue


async def test_each_bucket_drops_its_own_periods(installation: Database) -> None:
    """By its own table of periods."""
    first, second = buckets_of(installation, COUNT)[:2]
    ended = """
        insert into noetl.execution (execution_id, path, status, ended_at)
        values (noetl.first_id_at('2025-01-15Z') + noetl.bucket_number(), 'story', 'COMPLETED', '2025-01-16Z')"""
    for one in (first, second):
        await add_period(one, LONG_AGO)
        await execute(one, ended)
    assert await drop(first, 86_400.0) == [retention.DropOutcome(LONG_AGO, 1)]
    assert [await value(one, "select count(*) from noetl.execution") for one in (first, second)] == [0, 1]
    events = f"select to_regclass('noetl_history.event_{LONG_AGO}') is null"
    assert [await value(one, events) for one in (first, second)] == [True, False]
