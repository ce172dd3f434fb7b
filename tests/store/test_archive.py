"""Archiving: whole periods leave, nothing of what lives is touched, and whoever asks for what has left is told so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from noetl_broker.daemon import periods
from noetl_broker.errors import NotFoundFault, OperatorFault, PermissionFault
from noetl_broker.playbook.findings import Rules
from noetl_broker.store import archive
from noetl_broker.store.courses import load_course
from noetl_broker.store.executions import find_execution, list_events, start_execution
from noetl_broker.store.facts import look_closely
from noetl_broker.store.histories import ALL, count_histories, weigh
from noetl_broker.store.history import find_turn, load_history
from noetl_broker.store.migrate import migrate
from noetl_broker.store.pool import Connection, connect
from noetl_broker.store.session import session as command_session
from noetl_broker.store.verify import Scope, verify
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
from tests.periods import BODY, LATER, LONG_AGO, add_period, ended_in, partitions, set_clock
from tests.postgres import Database
from tests.roles import logins
from tests.sessions import blocked, session
from tests.store import noetl_server

TABLES = sorted(["event", "turn", "queue", "workflow", "iteration", "transition", "workload", "workbook"])
HISTORY = "select event_id, event_type, result::text, meta::text from {} where execution_id = $1 order by event_id"


async def archive_all(database: Database, older_than: float = 0.0) -> dict[str, tuple[archive.Holder, ...]]:
    """Archive what is due; gives who keeps the rest of the old periods back, by period."""
    async with session(database) as connection:
        held = {}
        for period in await archive.list_periods(connection, older_than):
            if period.is_due:
                held[period.name] = await archive.archive_period(connection, period, older_than)
            elif period.is_old and period.archived_at is None:
                held[period.name] = period.holders
        async for batch in archive.outside_periods(connection, older_than):
            await archive.archive_rows(connection, batch)
    return held


async def test_a_new_database_has_partitions_for_what_comes(database: Database) -> None:
    """Two periods of each table of history, and a default partition that holds nothing."""
    assert await value(database, "select count(*) from noetl.period") == 2
    [(first,), (second,)] = await rows(database, "select name from noetl.period order by first_id")
    found = [await partitions(database, "noetl_history", name) for name in (first, second, "default")]
    assert found == [TABLES] * 3
    await register(database, BODY)
    await start(database)
    await drain(database)
    assert await rows(database, "select distinct tableoid::regclass::text from noetl.event") == [
        (f"noetl_history.event_{first}",)
    ]


async def test_a_daemon_makes_the_partitions_of_the_next_period(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the last one has begun; a new length counts from there on."""
    await execute(database, "delete from noetl.period where first_id = (select max(first_id) from noetl.period)")
    [(last, begins)] = await rows(
        database, "select to_char(now() + interval '30 days', 'YYYYMMDD'), next_id from noetl.period"
    )
    for table in TABLES:
        await execute(database, f"drop table noetl_history.{table}_{last}")
    monkeypatch.setattr(periods, "AGAIN_SECONDS", 0.1)  # a machine under load may not have the lock at once
    async with running(database, period_days=40):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await partitions(database, "noetl_history", last) != TABLES:
                continue
    length = "select (next_id >> 20) - (first_id >> 20) from noetl.period where first_id = $1"
    assert await value(database, length, begins) == 40 * 86_400_000


async def test_who_makes_partitions_gives_way_to_a_long_reader(database: Database) -> None:
    """All others wait behind a lock that is waited for: so not for long, nor often. There is a whole period's time."""
    name = await value(database, "select max(name) from noetl.period")
    await execute(database, f"drop table noetl_history.event_{name}")
    async with session(database) as reader, session(database) as broker:
        await reader.execute("begin; select from noetl.event")
        began = time.monotonic()
        with pytest.raises(asyncpg.LockNotAvailableError):
            await archive.add_partition(broker, 30)
        waited = time.monotonic() - began
        assert (waited < 0.8, waited / periods.AGAIN_SECONDS < 0.02) == (True, True)
        await reader.execute("commit")
        assert await archive.add_partition(broker, 30) == f"event_{name}"


async def test_a_period_whose_rows_came_before_its_partition_stays_in_the_default(database: Database) -> None:
    """Nothing fails: of that table there is no partition of that period, of the others there is."""
    [(name, first)] = await rows(database, "select name, first_id from noetl.period order by first_id desc limit 1")
    for table in TABLES:
        await execute(database, f"drop table noetl_history.{table}_{name}")
    await execute(database, "insert into noetl.turn values ($1, 1, 1, 'decided', null, now())", first + 1)
    while await value(database, "select noetl.add_partition(30)") is not None:
        pass
    assert await partitions(database, "noetl_history", name) == [table for table in TABLES if table != "turn"]


async def test_a_large_default_partition_gets_no_other_beside_it(database: Database) -> None:
    """Postgres would read it from end to end while nobody may use it."""
    name = await value(database, "select max(name) from noetl.period")
    for table in ("turn", "workload"):
        await execute(database, f"drop table noetl_history.{table}_{name}")
    await execute(
        database,
        "insert into noetl.turn select 1, n, n, 'decided', repeat('x', 1900), now() from generate_series(1, 36000) n",
    )
    assert [await value(database, "select noetl.add_partition(30)") for _ in range(2)] == [f"workload_{name}", None]


async def test_a_period_leaves_with_all_that_is_in_it(database: Database) -> None:
    """Nothing is deleted; the row of the execution stays, and so does what else there is."""
    [gone] = await ended_in(database, LONG_AGO)
    await set_clock(database, LATER)
    await add_period(database, LATER)
    before = await rows(database, HISTORY.format("noetl.event"), gone)
    [lives] = await start(database)
    await drain(database)
    assert [name for name, held in (await archive_all(database)).items() if held] == [LATER]
    assert await partitions(database, "noetl_archive", LONG_AGO) == TABLES
    assert await partitions(database, "noetl_history", LONG_AGO) == []
    assert await rows(database, HISTORY.format(f"noetl_archive.event_{LONG_AGO}"), gone) == before != []
    assert await rows(database, "select execution_id from noetl.event group by execution_id") == [(lives,)]
    assert await rows(database, "select execution_id, status from noetl.execution order by 1") == [
        (gone, "COMPLETED"), (lives, "RUNNING"),
    ]  # fmt: skip
    await complete_jobs(database)
    await drain(database)
    assert await broken_invariants(database) == {}


async def unread(database: Database, gone: int) -> None:
    """Mail waits."""
    await execute(database, "insert into noetl.inbox (execution_id, event_id) values ($1, 1)", gone)


async def set_aside(database: Database, gone: int) -> None:
    """A dead letter is there."""
    await execute(database, "insert into noetl.dead_letter (execution_id, event_id, reason) values ($1, 1, 'x')", gone)


async def a_leased_job(database: Database, gone: int) -> None:
    """A worker has not answered yet."""
    await execute(database, "update noetl.queue set status = 'leased' where execution_id = $1", gone)


async def a_live_parent(database: Database, gone: int) -> None:
    """The one that started it."""
    await execute(database, "insert into noetl.execution (execution_id) values (1)")
    await execute(database, "update noetl.execution set parent_execution_id = 1 where execution_id = $1", gone)


async def a_live_child(database: Database, gone: int) -> None:
    """One that it started."""
    await execute(database, "insert into noetl.execution (execution_id, parent_execution_id) values (1, $1)", gone)


async def alive(database: Database, gone: int) -> None:
    """It goes on."""
    await execute(database, "update noetl.execution set status = 'RUNNING' where execution_id = $1", gone)


async def no_end(database: Database, gone: int) -> None:
    """Nobody knows when it ended."""
    await execute(database, "update noetl.execution set ended_at = null where execution_id = $1", gone)


@pytest.mark.parametrize(
    "what, reason",
    [
        (unread, "event 1 of it is not read yet"),
        (set_aside, "event 1 of it is set aside"),
        (a_leased_job, "a worker holds its job"),
        (a_live_parent, "its parent 1 runs"),
        (a_live_child, "its child 1 runs"),
        (alive, "it runs"),
        (no_end, "it ended only lately"),
    ],
)
async def test_what_lives_keeps_its_period(
    database: Database, what: Callable[[Database, int], Awaitable[None]], reason: str
) -> None:
    """It is named with the reason, and nothing of the period is touched."""
    ids = await ended_in(database, LONG_AGO, count=3)
    await what(database, ids[1])
    [(held, why)] = (await archive_all(database))[LONG_AGO]
    assert (held, why[: len(reason)]) == (ids[1], reason)
    assert await partitions(database, "noetl_history", LONG_AGO) == TABLES


async def test_an_execution_that_ended_lately_keeps_its_period(database: Database) -> None:
    """Its period is old, its end is not."""
    [gone] = await ended_in(database, LONG_AGO)
    assert await archive_all(database, 3600.0) == {LONG_AGO: (archive.Holder(gone, "it ended only lately"),)}


async def test_a_period_that_is_not_over_is_not_asked_about(database: Database) -> None:
    """However little happens in it."""
    async with session(database) as connection:
        periods = await archive.list_periods(connection, 0.0)
    assert [(period.is_old, period.is_due) for period in periods] == [(False, False)] * 2


async def test_what_begins_while_a_period_leaves_keeps_it(database: Database) -> None:
    """A transaction that has an id of the period and is not committed yet: the period waits for it, and stays."""
    await ended_in(database, LONG_AGO)
    late = await connect(database.dsn, name="late")
    try:
        begun = late.transaction()
        await begun.start()
        execution_id = await start_execution(late, "story", "{}", version=None, idempotency_key=None)
        leaving = asyncio.create_task(archive_all(database))
        async with session(database) as own:
            await blocked(own)
        await begun.commit()
        assert [holder.execution_id for holder in (await leaving)[LONG_AGO]] == [execution_id]
    finally:
        await late.close()
    assert await partitions(database, "noetl_history", LONG_AGO) == TABLES
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    assert await broken_invariants(database) == {}


async def test_an_interrupted_archive_goes_on(database: Database) -> None:
    """The events are away and the period is marked; the rest follows with the next call."""
    await ended_in(database, LONG_AGO)
    async with session(database) as connection:
        await connection.fetchval("select noetl.detach_partition('event', $1)", LONG_AGO)
        await connection.execute("update noetl.period set archived_at = now() where name = $1", LONG_AGO)
    assert await archive_all(database) == {LONG_AGO: ()}
    assert await partitions(database, "noetl_archive", LONG_AGO) == TABLES
    assert await broken_invariants(database) == {}


async def test_an_answer_that_comes_after_all_changes_nothing(database: Database) -> None:
    """It is read like any event of an execution that is over, and follows what has left with the next call."""
    [gone] = await ended_in(database, LONG_AGO)
    await archive_all(database)
    await execute(
        database,
        "insert into noetl.event (execution_id, event_type, node_id, node_name) values"
        " ($1, 'action_completed', 'x:work', 'work'), ($1, 'execution_start', 'x', 'story')",
        gone,
    )
    await drain(database)
    turns = "select outcome from {} where execution_id = $1"
    assert await rows(database, turns.format("noetl_history.turn_default"), gone) == [
        ("after_end",), ("duplicate",),
    ]  # fmt: skip
    assert await value(database, "select count(*) from noetl.queue") == 0
    assert await broken_invariants(database) == {}
    await archive_all(database)
    assert await value(database, "select count(*) from noetl.event") == 0
    assert len(await rows(database, turns.format("noetl_archive.turn"), gone)) == 2


async def test_a_period_comes_back_as_it_was(database: Database) -> None:
    """With what came meanwhile; then it can be replayed again."""
    [gone] = await ended_in(database, LONG_AGO)
    await archive_all(database)
    late = "insert into noetl.event (execution_id, event_type, node_name) values ($1, 'action_completed', 'work')"
    await execute(database, late, gone)
    await drain(database)
    await archive_all(database)
    await execute(database, late, gone)
    await drain(database)
    async with session(database) as connection:
        await archive.restore_period(connection, LONG_AGO)
        history = await load_history(connection, gone, Rules())
    assert await partitions(database, "noetl_history", LONG_AGO) == TABLES
    assert [turn.outcome for turn in history.turns] == ["decided", "decided", "after_end", "after_end"]
    assert await broken_invariants(database) == {}
    assert await archive_all(database) == {LONG_AGO: ()}


async def test_nobody_waits_while_what_comes_back_is_read(database: Database) -> None:
    """Postgres reads nothing of it when it is attached: it was read before, with no lock on what others use."""
    await ended_in(database, LONG_AGO)
    await archive_all(database)
    told = []
    async with session(database) as connection:
        connection.add_log_listener(lambda _, said: told.append(said.message))
        await connection.execute("set client_min_messages = debug1")
        await archive.restore_period(connection, LONG_AGO)
        await connection.execute("reset client_min_messages")
    implied = 'partition constraint for table "{}_{}" is implied by existing constraints'
    assert sorted(said for said in told if "partition constraint" in said) == [
        implied.format(table, LONG_AGO) for table in TABLES
    ]
    assert await value(database, "select count(*) from pg_constraint where conname = 'in_period'") == 0


async def test_a_period_that_left_before_its_tables_got_a_column_comes_back(database: Database) -> None:
    """As do the rows that came late and left one by one before; what they lack is what the table gives by itself."""
    [gone] = await ended_in(database, LONG_AGO)
    late = "insert into noetl.event (execution_id, event_type, node_name) values ($1, 'action_completed', 'work')"
    await archive_all(database)
    await execute(database, late, gone)
    await drain(database)
    await archive_all(database)
    await execute(
        database,
        """alter table noetl.event add column gone text;
           alter table noetl.event drop column gone, add column "Trace id" text,
             add column weight numeric(4, 1) not null default 1.5""",
    )
    await execute(database, late, gone)
    await execute(database, "update noetl.event set \"Trace id\" = 'late'")
    async with session(database) as connection:
        await archive.restore_period(connection, LONG_AGO)
    assert await rows(
        database,
        """select event_type, "Trace id", weight::text from noetl.event where event_type <> 'step_started'
             and event_type <> 'action_started' order by created_at""",
    ) == [
        ("execution_start", None, "1.5"), ("action_completed", None, "1.5"), ("step_completed", None, "1.5"),
        ("execution_complete", None, "1.5"), ("action_completed", None, "1.5"), ("action_completed", "late", "1.5"),
    ]  # fmt: skip
    assert await partitions(database, "noetl_history", LONG_AGO) == TABLES


async def test_only_what_is_archived_comes_back(database: Database) -> None:
    """A name that nobody knows, and a period that is there."""
    await ended_in(database, LONG_AGO)
    async with session(database) as connection:
        with pytest.raises(NotFoundFault, match="no period 20200101"):
            await archive.restore_period(connection, "20200101")
        with pytest.raises(OperatorFault, match="not archived"):
            await archive.restore_period(connection, LONG_AGO)


async def test_the_same_idempotency_key_gives_the_same_execution_for_ever(database: Database) -> None:
    """Its row stays."""
    await register(database, BODY)
    await add_period(database, LONG_AGO)
    await set_clock(database, LONG_AGO)
    again: dict[str, Any] = {"version": None, "idempotency_key": "once"}
    async with session(database) as connection:
        first = await start_execution(connection, "story", "{}", **again)
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    await archive_all(database)
    async with session(database) as connection:
        assert await start_execution(connection, "story", "{}", **again) == first


Asking = Callable[[Connection, int], Awaitable[object]]
ASKED: dict[str, Asking] = {
    "events": list_events,
    "replay": lambda connection, gone: load_history(connection, gone, Rules()),
    "replay --until": lambda connection, gone: find_turn(connection, gone, 1),
    "explain": lambda connection, gone: look_closely(connection, gone, Rules()),
    "graph": lambda connection, gone: load_course(connection, gone, Rules()),
    "verify": lambda connection, gone: verify(connection, Scope(gone)),
    "reevaluate": lambda connection, gone: connection.fetchval("select noetl.put_back($1)", gone),
    "fork": lambda connection, gone: connection.fetchval(
        "select noetl.fork_execution($1, $2)", gone, {"results": []}
    ),
}  # fmt: skip


@pytest.mark.parametrize("asked", ASKED)
async def test_who_asks_for_what_has_left_is_told_where_it_is(database: Database, asked: str) -> None:
    """And not that there is no such execution, or that it did nothing."""
    [gone] = await ended_in(database, LONG_AGO)
    await archive_all(database)
    with pytest.raises(NotFoundFault, match="is archived"):
        async with command_session(database.dsn, name="test") as connection:
            await ASKED[asked](connection, gone)


async def test_status_says_that_it_is_archived(database: Database) -> None:
    """What the row of the execution has is told."""
    [gone] = await ended_in(database, LONG_AGO)
    await archive_all(database)
    async with session(database) as connection:
        found = await find_execution(connection, gone)
    assert (found["status"], found["archived"]) == ("COMPLETED", True)


async def test_what_has_left_is_in_no_list_of_histories(database: Database) -> None:
    """`replay --all` and `verify --all` go over what is there."""
    await ended_in(database, LONG_AGO)
    kept = await ended_in(database, LATER)
    async with session(database) as connection:
        for period in (await archive.list_periods(connection, 0.0))[:1]:
            await archive.archive_period(connection, period, 0.0)
        assert [weight.execution_id async for load in weigh(connection, ALL) for weight in load] == kept
        assert await count_histories(connection, ALL) == 1
        report = await verify(connection, Scope(), deep=Rules())
    assert (report.executions, report.broken) == (1, 0)


async def test_brokers_go_on_beside_it(database: Database) -> None:
    """Periods leave while executions are decided on: nothing is lost, nothing doubled."""
    for name in (LONG_AGO, LATER):
        await ended_in(database, name, count=20)
    await execute(database, "create or replace function noetl.next_id() returns bigint language sql volatile as $$"
                  " select noetl.first_id_at(clock_timestamp()) | (nextval('noetl.id_seq') & 1048575) $$")  # fmt: skip
    await start(database, count=300)
    async with running(database):
        left = asyncio.create_task(archive_all(database))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await value(database, "select count(*) from noetl.execution where status = 'RUNNING'"):
                await complete_jobs(database, {"n": 1}, most=50)
        await until_ended(database)
        assert await left == {LONG_AGO: (), LATER: ()}
    assert await value(database, "select count(*) from noetl.event where event_type = 'execution_complete'") == 300
    assert await broken_invariants(database) == {}


async def test_beside_a_noetl_server_rows_are_moved(empty_database: Database) -> None:
    """Its tables have no partitions: what ended goes, what lives and what ran before this broker stays."""
    database = empty_database
    await execute(database, noetl_server.TABLES)
    await execute(database, noetl_server.HISTORY)
    await migrate(database.dsn)
    await execute(
        database,
        "insert into noetl.catalog (catalog_id, path, version, kind, content) values (78, 'mine', 1, 'Playbook', $1)",
        noetl_server.PLAYBOOK,
    )
    over, alive = 9, 11
    for execution_id in (over, alive):
        await execute(database, noetl_server.START.format(execution_id=execution_id))
    await drain(database)
    await execute(database, "select noetl.cancel_execution($1)", over)
    await drain(database)
    before = await rows(database, "select event_id from noetl.event where execution_id = $1 order by 1", over)
    await archive_all(database)
    ids = "select distinct execution_id from noetl.{} order by 1"
    assert [await rows(database, ids.format(table)) for table in ("event", "turn", "queue", "workflow")] == [
        [(noetl_server.OLD,), (alive,)], [(alive,)], [(noetl_server.OLD,), (alive,)], [(noetl_server.OLD,), (alive,)],
    ]  # fmt: skip
    assert await rows(database, "select event_id from noetl_archive.event order by 1") == before
    assert await rows(database, "select execution_id from noetl.archived") == [(over,)]
    assert await broken_invariants(database, but=["every execution ended"]) == {}
    async with session(database) as connection:
        with pytest.raises(NotFoundFault, match="is archived"):
            await list_events(connection, over)


async def test_a_broker_makes_partitions_and_may_not_take_them_away(database: Database) -> None:
    """Making them is a function with its owner's rights; what leaves is the owner's to say."""
    await ended_in(database, LONG_AGO)
    await execute(database, "delete from noetl.period where first_id = (select max(first_id) from noetl.period)")
    name = await value(database, "select to_char(now() + interval '30 days', 'YYYYMMDD')")
    await execute(database, f"drop table noetl_history.turn_{name}")
    async with logins(database) as those:
        async with command_session(those.broker.dsn, name="test") as connection:
            assert await archive.add_partition(connection, 30) == f"turn_{name}"
            assert await archive.add_partition(connection, 30) is None
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await archive.list_periods(connection, 0.0)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetchval("select noetl.detach_partition('event', $1)", LONG_AGO)
        for stranger in (those.worker, those.producer, those.reader):
            with pytest.raises(PermissionFault):
                async with command_session(stranger.dsn, name="test") as connection:
                    await archive.add_partition(connection, 30)
    assert await partitions(database, "noetl_history", LONG_AGO) == TABLES
