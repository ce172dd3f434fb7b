"""The archive moves whole periods and never a running execution. Commands on archived executions say so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from noetl_broker.daemon import partitions as partition_keeper
from noetl_broker.errors import NotFoundFault, OperatorFault, PermissionFault
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin import archive
from noetl_broker.store.admin.execution_path import load_execution_path
from noetl_broker.store.admin.executions import Filter, find_execution, list_events, start_execution
from noetl_broker.store.admin.explain_facts import load_history_and_facts
from noetl_broker.store.admin.history import find_turn, load_history
from noetl_broker.store.admin.history_scan import count_histories, measure_sizes
from noetl_broker.store.admin.verify import VerifyScope, verify
from noetl_broker.store.connect.connection import Connection, connect
from noetl_broker.store.connect.migrations import migrate
from noetl_broker.store.connect.session import session as command_session
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
from tests.postgres import Database, named
from tests.roles import logins
from tests.sessions import blocked, session
from tests.store import noetl_server

TABLES = sorted((
    "event", "turn", "queue", "workflow", "iteration", "transition", "workload", "workbook", "wait", "signal_taken",
    "log", "undo",
))  # fmt: skip
HISTORY = "select event_id, event_type, result::text, meta::text from {} where execution_id = $1 order by event_id"
UNDONE = """
    insert into noetl.undo (execution_id, node_id, step, visit, turn, status, ended_at)
    values ($1, $1::bigint || ':work', 'work', 1, 2, 'done', now())"""
# The table has the days: migrate may have run yesterday.
LAST_PERIOD_REMOVED = (
    "delete from noetl.period where first_id = (select max(first_id) from noetl.period) returning name"
)


async def archive_all(database: Database, older_than: float = 0.0) -> dict[str, tuple[archive.Blocker, ...]]:
    """Archive all periods that are due. Return the executions that keep rows in a period, by period."""
    async with session(database) as connection:
        blockers = {}
        for period in await archive.list_periods(connection, older_than):
            if period.is_due:
                blockers[period.name] = await archive.archive_period(connection, period, older_than)
            elif period.is_old and period.archived_at is None:
                blockers[period.name] = period.blockers
        async for batch in archive.outside_periods(connection, older_than):
            await archive.archive_rows(connection, batch)
    return blockers


async def test_migrate_makes_partitions_of_this_period_and_the_next(database: Database) -> None:
    """Each table of the history has two periods and an empty default partition."""
    assert await value(database, "select count(*) from noetl.period") == 2
    [(first,), (second,)] = await rows(database, "select name from noetl.period order by first_id")
    found = [await partitions(database, "noetl_history", name) for name in (first, second, "default")]
    assert found == [TABLES] * 3
    await register(database, BODY)
    await start(database)
    await drain(database)
    assert await rows(database, "select distinct tableoid::regclass::text from noetl.event") == [
        (named(f"noetl_history.event_{first}"),)
    ]


async def test_a_daemon_makes_the_partitions_of_the_next_period(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does so when the last period has begun. A new length counts from the next period."""
    last = await value(database, LAST_PERIOD_REMOVED)
    begins = await value(database, "select next_id from noetl.period")
    for table in TABLES:
        await execute(database, f"drop table noetl_history.{table}_{last}")
    monkeypatch.setattr(partition_keeper, "RETRY_SECONDS", 0.1)  # a machine under load may not have the lock at once
    async with running(database, period_days=40):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await partitions(database, "noetl_history", last) != TABLES:
                continue
    length = "select (next_id >> 20) - (first_id >> 20) from noetl.period where first_id = $1"
    assert await value(database, length, begins) == 40 * 86_400_000


async def test_making_partitions_does_not_wait_long_for_a_reader(database: Database) -> None:
    """Other sessions queue behind a lock that is waited for. The daemon tries again later."""
    source = await value(database, "select pg_get_functiondef('noetl.add_partition'::regproc)")
    [waits_ms] = re.findall(r"lock_timeout TO '(\d+)ms'", source)
    assert int(waits_ms) / 1000 / partition_keeper.RETRY_SECONDS < 0.02
    name = await value(database, "select max(name) from noetl.period")
    await execute(database, f"drop table noetl_history.event_{name}")
    async with session(database) as reader, session(database) as broker:
        await reader.execute("begin; select from noetl.event")
        with pytest.raises(asyncpg.LockNotAvailableError):  # the session itself would wait for a minute
            await archive.add_partition(broker, 30)
        await reader.execute("commit")
        assert await archive.add_partition(broker, 30) == f"event_{name}"


async def test_rows_before_their_partition_stay_in_the_default_partition(database: Database) -> None:
    """Their table gets no partition of that period; the other tables do."""
    [(name, first)] = await rows(database, "select name, first_id from noetl.period order by first_id desc limit 1")
    for table in TABLES:
        await execute(database, f"drop table noetl_history.{table}_{name}")
    await execute(database, "insert into noetl.turn values ($1, 1, 1, 'decided', null, now())", first + 1)
    while await value(database, "select noetl.add_partition(30)") is not None:
        pass
    assert await partitions(database, "noetl_history", name) == [table for table in TABLES if table != "turn"]


async def test_no_partition_is_made_beside_a_large_default_partition(database: Database) -> None:
    """Postgres would scan the whole default partition under a lock."""
    name = await value(database, "select max(name) from noetl.period")
    for table in ("turn", "workload"):
        await execute(database, f"drop table noetl_history.{table}_{name}")
    await execute(
        database,
        "insert into noetl.turn select 1, n, n, 'decided', repeat('x', 1900), now() from generate_series(1, 36000) n",
    )
    assert [await value(database, "select noetl.add_partition(30)") for _ in range(2)] == [f"workload_{name}", None]


async def test_archiving_a_period_moves_all_its_rows(database: Database) -> None:
    """Nothing is deleted. The row of the execution stays."""
    [ended_id] = await ended_in(database, LONG_AGO)
    await execute(database, UNDONE, ended_id)
    await set_clock(database, LATER)
    await add_period(database, LATER)
    before = await rows(database, HISTORY.format("noetl.event"), ended_id)
    [lives] = await start(database)
    await drain(database)
    assert [name for name, blockers in (await archive_all(database)).items() if blockers] == [LATER]
    assert await partitions(database, "noetl_archive", LONG_AGO) == TABLES
    assert await partitions(database, "noetl_history", LONG_AGO) == []
    assert await rows(database, HISTORY.format(f"noetl_archive.event_{LONG_AGO}"), ended_id) == before != []
    assert await rows(database, "select execution_id from noetl.event group by execution_id") == [(lives,)]
    assert await rows(database, "select execution_id, status from noetl.execution order by 1") == [
        (ended_id, "COMPLETED"), (lives, "RUNNING"),
    ]  # fmt: skip
    await complete_jobs(database)
    await drain(database)
    assert await broken_invariants(database) == {}


# What keeps the execution $1 in its period, and how the reason begins. 1 and 2 are executions of another period.
KEEPERS = (
    ("insert into noetl.inbox (execution_id, event_id) values ($1, 1)", "event 1 of it is not read yet"),
    (
        "insert into noetl.dead_letter (execution_id, event_id, reason) values ($1, 1, 'x')",
        "event 1 of it is set aside",
    ),
    ("update noetl.queue set status = 'leased' where execution_id = $1", "a worker holds its job"),
    ("update noetl.execution set parent_execution_id = 1 where execution_id = $1", "its parent 1 runs"),
    ("insert into noetl.execution (execution_id, parent_execution_id) values (2, $1)", "its child 2 runs"),
    ("update noetl.execution set status = 'RUNNING' where execution_id = $1", "it runs"),
    ("update noetl.execution set status = 'PAUSED' where execution_id = $1", "it runs"),
    ("update noetl.execution set status = 'QUEUED' where execution_id = $1", "it runs"),
    ("update noetl.execution set ended_at = null where execution_id = $1", "it ended only lately"),
)


async def test_an_execution_that_is_not_over_keeps_its_period(database: Database) -> None:
    """The report names each execution and the reason; no row of the period moves, also if there is only one."""
    ids = await ended_in(database, LONG_AGO, count=len(KEEPERS) + 1)
    await execute(database, "insert into noetl.execution (execution_id) values (1)")
    async with session(database) as connection:
        for index, ((keeper, reason), kept) in enumerate(zip(KEEPERS, ids, strict=False)):
            alone = connection.transaction()
            await alone.start()
            await connection.execute(keeper, kept)
            [period] = [one for one in await archive.list_periods(connection, 0.0) if one.name == LONG_AGO]
            [blocker] = period.blockers
            assert (blocker.execution_id, blocker.reason[: len(reason)], period.is_due) == (kept, reason, False), index
            [blocker] = await archive.archive_period(connection, period, 0.0)
            assert blocker.execution_id == kept
            await alone.rollback()
    assert await partitions(database, "noetl_history", LONG_AGO) == TABLES


async def test_an_execution_that_ended_recently_keeps_its_period(database: Database) -> None:
    """The age counts from the end, not from the start."""
    [ended_id] = await ended_in(database, LONG_AGO)
    assert await archive_all(database, 3600.0) == {LONG_AGO: (archive.Blocker(ended_id, "it ended only lately"),)}


async def test_an_uncommitted_start_keeps_its_period(database: Database) -> None:
    """The archive waits for the transaction and then finds its execution."""
    await ended_in(database, LONG_AGO)
    late = await connect(database, name="late")
    try:
        begun = late.transaction()
        await begun.start()
        execution_id = await start_execution(late, "story", "{}", version=None, idempotency_key=None)
        leaving = asyncio.create_task(archive_all(database))
        async with session(database) as own:
            await blocked(own)
        await begun.commit()
        assert [blocker.execution_id for blocker in (await leaving)[LONG_AGO]] == [execution_id]
    finally:
        await late.close()
    assert await partitions(database, "noetl_history", LONG_AGO) == TABLES
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    assert await broken_invariants(database) == {}


async def test_an_interrupted_archive_continues(database: Database) -> None:
    """Only the events have moved. The next call moves the rest."""
    await ended_in(database, LONG_AGO)
    async with session(database) as connection:
        await connection.fetchval("select noetl.detach_partition('event', $1)", LONG_AGO)
        await connection.execute("update noetl.period set archived_at = now() where name = $1", LONG_AGO)
    assert await archive_all(database) == {LONG_AGO: ()}
    assert await partitions(database, "noetl_archive", LONG_AGO) == TABLES
    assert await broken_invariants(database) == {}


async def test_events_of_an_archived_execution_change_nothing(database: Database) -> None:
    """They get turns as after any end. The next call archives them."""
    [ended_id] = await ended_in(database, LONG_AGO)
    await archive_all(database)
    await execute(
        database,
        "insert into noetl.event (execution_id, event_type, node_id, node_name) values"
        " ($1, 'action_completed', 'x:work', 'work'), ($1, 'execution_start', 'x', 'story')",
        ended_id,
    )
    await drain(database)
    turns = "select outcome from {} where execution_id = $1"
    assert await rows(database, turns.format("noetl_history.turn_default"), ended_id) == [
        ("after_end",), ("duplicate",),
    ]  # fmt: skip
    assert await value(database, "select count(*) from noetl.queue") == 0
    assert await broken_invariants(database) == {}
    await archive_all(database)
    assert await value(database, "select count(*) from noetl.event") == 0
    assert len(await rows(database, turns.format("noetl_archive.turn_without_period"), ended_id)) == 2


async def test_restore_brings_a_period_back_unchanged(database: Database) -> None:
    """Late events come back with it, and the execution can be replayed. No table is scanned under a lock.

    A constraint is validated before, so Postgres attaches the table without a scan.
    """
    [ended_id] = await ended_in(database, LONG_AGO)
    await archive_all(database)
    late = "insert into noetl.event (execution_id, event_type, node_name) values ($1, 'action_completed', 'work')"
    await execute(database, late, ended_id)
    await drain(database)
    await archive_all(database)
    await execute(database, late, ended_id)
    await drain(database)
    messages = []
    async with session(database) as connection:
        connection.add_log_listener(lambda _, message: messages.append(message.message))
        await connection.execute("set client_min_messages = debug1")
        await archive.restore_period(connection, LONG_AGO)
        await connection.execute("reset client_min_messages")
        history = await load_history(connection, ended_id, PlaybookRules())
    implied = 'partition constraint for table "{}_{}" is implied by existing constraints'
    assert sorted(message for message in messages if "partition constraint" in message) == [
        implied.format(table, LONG_AGO) for table in TABLES
    ]
    assert await value(database, "select count(*) from pg_constraint where conname = 'in_period'") == 0
    assert await partitions(database, "noetl_history", LONG_AGO) == TABLES
    assert [turn.outcome for turn in history.turns] == ["decided", "decided", "after_end", "after_end"]
    assert await broken_invariants(database) == {}
    assert await archive_all(database) == {LONG_AGO: ()}


async def test_restore_adds_columns_that_archived_tables_lack(database: Database) -> None:
    """Rows that were archived one by one come back too. New columns get their defaults."""
    [ended_id] = await ended_in(database, LONG_AGO)
    late = "insert into noetl.event (execution_id, event_type, node_name) values ($1, 'action_completed', 'work')"
    await archive_all(database)
    await execute(database, late, ended_id)
    await drain(database)
    await archive_all(database)
    await execute(
        database,
        """alter table noetl.event add column gone text;
           alter table noetl.event drop column gone, add column "Trace id" text,
             add column size numeric(4, 1) not null default 1.5""",
    )
    await execute(database, late, ended_id)
    await execute(database, "update noetl.event set \"Trace id\" = 'late'")
    async with session(database) as connection:
        await archive.restore_period(connection, LONG_AGO)
    assert await rows(
        database,
        """select event_type, "Trace id", size::text from noetl.event where event_type <> 'step_started'
             and event_type <> 'action_started' order by created_at""",
    ) == [
        ("execution_start", None, "1.5"), ("action_completed", None, "1.5"), ("step_completed", None, "1.5"),
        ("execution_complete", None, "1.5"), ("action_completed", None, "1.5"), ("action_completed", "late", "1.5"),
    ]  # fmt: skip
    assert await partitions(database, "noetl_history", LONG_AGO) == TABLES


async def test_only_archived_periods_can_be_restored(database: Database) -> None:
    """An unknown name and a period that is not archived are refused. The current one is not archived."""
    await ended_in(database, LONG_AGO)
    async with session(database) as connection:
        with pytest.raises(NotFoundFault, match="no period 20200101"):
            await archive.restore_period(connection, "20200101")
        with pytest.raises(OperatorFault, match="not archived"):
            await archive.restore_period(connection, LONG_AGO)
        periods = await archive.list_periods(connection, 0.0)
    of_now = [(period.is_old, period.is_due) for period in periods if period.name != LONG_AGO]
    assert of_now == [(False, False)] * 2


async def test_an_idempotency_key_names_its_execution_after_archiving(database: Database) -> None:
    """The row of the execution stays."""
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


Command = Callable[[Connection, int], Awaitable[object]]
COMMANDS: dict[str, Command] = {
    "events": list_events,
    "replay": lambda connection, ended_id: load_history(connection, ended_id, PlaybookRules()),
    "replay --until": lambda connection, ended_id: find_turn(connection, ended_id, 1),
    "explain": lambda connection, ended_id: load_history_and_facts(connection, ended_id, PlaybookRules()),
    "graph": lambda connection, ended_id: load_execution_path(connection, ended_id, PlaybookRules()),
    "verify": lambda connection, ended_id: verify(connection, VerifyScope(ended_id)),
    "reevaluate": lambda connection, ended_id: connection.fetchval("select noetl.put_back($1)", ended_id),
    "fork": lambda connection, ended_id: connection.fetchval(
        "select noetl.fork_execution($1, $2)", ended_id, {"results": []}
    ),
}  # fmt: skip


async def test_commands_say_that_an_execution_is_archived(database: Database) -> None:
    """No command reports an unknown or an empty execution. `status` still shows the row of the execution."""
    [ended_id] = await ended_in(database, LONG_AGO)
    await archive_all(database)
    for command in COMMANDS.values():
        with pytest.raises(NotFoundFault, match="is archived"):
            async with command_session(database, name="test") as connection:
                await command(connection, ended_id)
    async with session(database) as connection:
        found = await find_execution(connection, ended_id)
    assert (found["status"], found["archived"]) == ("COMPLETED", True)


async def test_commands_over_all_executions_skip_archived_ones(database: Database) -> None:
    """These are `replay --all` and `verify --all`."""
    await ended_in(database, LONG_AGO)
    remaining = await ended_in(database, LATER)
    async with session(database) as connection:
        for period in (await archive.list_periods(connection, 0.0))[:1]:
            await archive.archive_period(connection, period, 0.0)
        assert [size.execution_id async for load in measure_sizes(connection, Filter()) for size in load] == remaining
        assert await count_histories(connection, Filter()) == 1
        report = await verify(connection, VerifyScope(), deep=PlaybookRules())
    assert (report.executions, report.broken) == (1, 0)


async def test_brokers_decide_while_periods_are_archived(database: Database) -> None:
    """No decision is lost or repeated."""
    for name in (LONG_AGO, LATER):
        await ended_in(database, name, count=20)
    await execute(database, "create or replace function noetl.next_id() returns bigint language sql volatile as $$"
                  " select noetl.first_id_at(clock_timestamp()) | (nextval('noetl.id_seq') & 1048575) $$")  # fmt: skip
    await start(database, count=300)
    async with running(database):
        archiving = asyncio.create_task(archive_all(database))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await value(database, "select count(*) from noetl.execution where status = 'RUNNING'"):
                await complete_jobs(database, {"n": 1}, limit=50)
        await until_ended(database)
        assert await archiving == {LONG_AGO: (), LATER: ()}
    assert await value(database, "select count(*) from noetl.event where event_type = 'execution_complete'") == 300
    assert await broken_invariants(database) == {}


async def test_beside_a_noetl_server_rows_are_archived_one_by_one(empty_database: Database) -> None:
    """Its tables have no partitions. Running executions and rows from before this broker stay."""
    database = empty_database
    await execute(database, noetl_server.TABLES)
    await execute(database, noetl_server.HISTORY)
    await migrate(database)
    await execute(
        database,
        "insert into noetl.catalog (catalog_id, path, version, kind, content) values (78, 'mine', 1, 'Playbook', $1)",
        noetl_server.PLAYBOOK,
    )
    over, running_id = 9, 11
    for execution_id in (over, running_id):
        await execute(database, noetl_server.START.format(execution_id=execution_id))
    await drain(database)
    await execute(database, "select noetl.cancel_execution($1)", over)
    await drain(database)
    before = await rows(database, "select event_id from noetl.event where execution_id = $1 order by 1", over)
    await archive_all(database)
    ids = "select distinct execution_id from noetl.{} order by 1"
    assert [await rows(database, ids.format(table)) for table in ("event", "turn", "queue", "workflow")] == [
        [(noetl_server.OLD,), (running_id,)], [(running_id,)],
        [(noetl_server.OLD,), (running_id,)], [(noetl_server.OLD,), (running_id,)],
    ]  # fmt: skip
    assert await rows(database, "select event_id from noetl_archive.event_without_period order by 1") == before
    assert await rows(database, "select execution_id from noetl.archived") == [(over,)]
    assert await broken_invariants(database, ignore=["every execution ended"]) == {}
    async with session(database) as connection:
        with pytest.raises(NotFoundFault, match="is archived"):
            await list_events(connection, over)


async def test_the_broker_role_may_make_partitions_but_not_archive_them(database: Database) -> None:
    """A function with its owner's rights makes partitions. Only the owner archives."""
    await ended_in(database, LONG_AGO)
    name = await value(database, LAST_PERIOD_REMOVED)
    await execute(database, f"drop table noetl_history.turn_{name}")
    async with logins(database) as those:
        async with command_session(those.broker, name="test") as connection:
            assert await archive.add_partition(connection, 30) == f"turn_{name}"
            assert await archive.add_partition(connection, 30) is None
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await archive.archive_rows(connection, [1])
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetchval("select noetl.detach_partition('event', $1)", LONG_AGO)
        for role in (those.worker, those.producer, those.reader):
            with pytest.raises(PermissionFault):
                async with command_session(role, name="test") as connection:
                    await archive.add_partition(connection, 30)
    assert await partitions(database, "noetl_history", LONG_AGO) == TABLES
