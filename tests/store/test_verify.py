"""`verify`: every invariant is broken by hand, in an otherwise clean database, and seen with its execution."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from operator import attrgetter

import psycopg
import pytest
from pytest_postgresql.executors import NoopExecutor

from noetl_broker.errors import NotFoundFault
from noetl_broker.playbook.findings import Rules
from noetl_broker.store.pool import connect
from noetl_broker.store.verify import CHECKS, TABLES, TURNS, Scope, verify
from tests.brokers import drain, execute, rows, value
from tests.conftest import lend
from tests.postgres import Database, Server
from tests.store.breaches import BREACHES, DEEP_BREACHES, Breach
from tests.store.histories import make_histories


@pytest.fixture(scope="module")
def histories(
    maintenance: psycopg.Connection, postgres_server: Server, migrated_template: NoopExecutor
) -> Iterator[Database]:
    """Yield a database with executions of every kind, of which each test gets a copy."""
    for database in lend(maintenance, postgres_server, migrated_template.template_dbname):
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(make_histories(database))
        yield database


@pytest.fixture
def database(maintenance: psycopg.Connection, postgres_server: Server, histories: Database) -> Iterator[Database]:
    """Yield a copy of the executions that this test may break."""
    yield from lend(maintenance, postgres_server, histories.name)


async def id_of(database: Database, path: str) -> int:
    """The first execution of a path."""
    return int(await value(database, "select min(execution_id) from noetl.execution where path = $1", path))


async def commit(database: Database, breach: Breach) -> None:
    """Break what the breach says."""
    await execute(database, breach.statements.replace(":id", str(await id_of(database, breach.path))))


EVERYTHING = Scope()
PATHS = """
    select x.execution_id, x.path from noetl.execution x
    union
    select e.execution_id, c.path from noetl.event e join noetl.catalog c on c.catalog_id = e.catalog_id"""
Found = dict[str, set[str]]  # the paths of the executions with faults, by what found them


async def found(database: Database, scope: Scope = EVERYTHING, *, deep: bool = False) -> Found:
    """What `verify` finds, by the statement that found it (or the invariant, where there is none)."""
    connection = await connect(database.dsn, name="test")
    try:
        report = await verify(connection, scope, deep=Rules() if deep else None)
        paths = {row[0]: row[1] for row in await connection.fetch(PATHS)}
    finally:
        await connection.close()
    faults: Found = defaultdict(set)
    for check, _, broken, examples in ((v.check, v.most, v.broken, v.examples) for v in report.verdicts):
        assert broken == len(examples)
        for execution_id, detail in examples:
            assert detail
            faults[check.statement or check.invariant].add(paths[execution_id])
    return dict(faults)


async def test_untouched_executions_of_every_kind_break_nothing(database: Database) -> None:
    """Ended, failed, cancelled, running; with retries, loops, children, items, duplicates and latecomers."""
    kinds = "select count(distinct status) from noetl.execution"
    assert await value(database, kinds) == 4
    assert await value(database, "select count(*) from noetl.event where event_type = 'action_retry'") == 3
    assert await value(database, "select count(*) from noetl.turn where outcome <> 'decided'") > 1
    assert await found(database, deep=True) == {}


@pytest.mark.parametrize("breach", BREACHES, ids=attrgetter("what"))
async def test_what_is_broken_by_hand_is_seen(database: Database, breach: Breach) -> None:
    """On the execution that was broken, by the checks that must see it, and by no other."""
    await commit(database, breach)
    assert await found(database) == {check: {breach.path} for check in breach.seen}


@pytest.mark.parametrize("breach", DEEP_BREACHES, ids=attrgetter("what"))
async def test_what_only_the_core_can_tell_is_seen_when_it_is_asked(database: Database, breach: Breach) -> None:
    """The rows against the fold of the turns, the conditions against themselves."""
    await commit(database, breach)
    assert await found(database, deep=True) == {check: {breach.path} for check in breach.seen}


async def test_an_execution_whose_playbook_is_gone_cannot_be_taken_again(database: Database) -> None:
    """Which is told of it, and of no other."""
    await execute(database, "delete from noetl.catalog where path = 'half'")
    faults = await found(database, deep=True)
    assert faults["I12"] == {"half"}


def test_every_check_has_a_breach_that_it_sees() -> None:
    """A check that nothing breaks may check nothing."""
    seen = set().union(*(breach.seen for breach in (*BREACHES, *DEEP_BREACHES)))
    assert {check.statement or check.invariant for check in (*CHECKS, TABLES, TURNS)} == seen


async def test_a_child_that_runs_on_after_its_parent_was_cancelled_is_seen(database: Database) -> None:
    """Nobody told it; and it cannot move either."""
    calling = await id_of(database, "calling")
    await execute(database, "select noetl.cancel_execution($1, 'enough')", calling)
    await drain(database)
    await execute(database, "update noetl.execution set status = 'RUNNING' where parent_execution_id = $1", calling)
    faults = await found(database)
    assert faults == {check: {"child"} for check in ("verify_ends", "verify_standstill", "verify_after_end")}


async def test_the_limit_that_a_playbook_sets_itself_is_not_held_against_it(database: Database) -> None:
    """`metadata.max_visits` stands in its text alone, and may be larger than the setting."""
    smaller = """rules = (rules::jsonb || '{"max_visits": 2}')::json"""
    await execute(database, f"update noetl.execution set {smaller} where path = 'done'")
    assert await found(database) == {"verify_limits": {"done"}}
    larger = "update noetl.catalog set content = replace(content, 'path: done', 'path: done, max_visits: 99')"
    await execute(database, larger)
    assert await found(database) == {}


async def test_a_restored_database_breaks_nothing(database: Database) -> None:
    """Every table was loaded in a transaction of its own: that no longer says who wrote what together."""
    for table in ("event", "turn"):
        await execute(
            database,
            f"create table public.kept as select * from noetl.{table}; set noetl.writer = 'broker';"
            f" truncate noetl.{table}; insert into noetl.{table} select * from public.kept; drop table public.kept",
        )
    distinct = "select count(distinct xmin::text) from noetl.{}"
    assert [await value(database, distinct.format(table)) for table in ("event", "turn")] == [1, 1]
    assert await found(database) == {}


@pytest.mark.parametrize("state", ["5", "[]", '{"tokens": 5, "total": "x"}', '{"tokens": [5, {}], "total": []}'])
async def test_a_state_that_is_none_stops_no_check(database: Database, state: str) -> None:
    """What was broken by force is looked at like anything else."""
    await execute(database, f"update noetl.execution_state set tokens = '{state}'")
    assert (await found(database)).keys() <= {"verify_visits"}


async def test_what_strangers_write_breaks_nothing(database: Database) -> None:
    """Ends, completions and claims of turns that nobody decided on: they were read, and changed nothing."""
    execution_id = await id_of(database, "half")
    for event_type in ("step_completed", "step_completed", "execution_complete", "step_started"):
        await execute(
            database,
            "insert into noetl.event (execution_id, event_type, node_id, node_name, parent_event_id)"
            " values ($1, $2, $3, 'a', 5)",
            execution_id, event_type, f"{execution_id}:a",
        )  # fmt: skip
    assert await found(database) == {}
    await drain(database)
    assert await found(database) == {}


LOST = "delete from noetl.event where event_type = 'execution_complete' and execution_id = $1"
LONG_AGO = """
    update noetl.execution_state set last_at = last_at - interval '2 hours';
    update noetl.execution set started_at = started_at - interval '2 hours'"""


async def test_only_what_changed_lately_is_looked_into_unless_all_is_asked_for(database: Database) -> None:
    """By the times of turns and starts; both bounds see what lies within."""
    done, late = await id_of(database, "done"), await id_of(database, "late")
    await execute(database, LONG_AGO)
    for execution_id in (done, late):
        await execute(database, LOST, execution_id)
    assert await found(database, Scope(since_seconds=3600)) == {}
    assert await found(database, Scope(since_seconds=3 * 3600)) == {"verify_ends": {"done", "late"}}
    assert await found(database, Scope()) == {"verify_ends": {"done", "late"}}
    assert await found(database, Scope(done)) == {"verify_ends": {"done"}}
    await execute(database, "update noetl.execution_state set last_at = now() where execution_id = $1", done)
    assert await found(database, Scope(since_seconds=3600)) == {"verify_ends": {"done"}}


async def test_an_old_execution_that_cannot_move_is_seen_all_the_same(database: Database) -> None:
    """Whether it can move is asked of all that run: the alarm must not end by itself."""
    await execute(database, LONG_AGO)
    await execute(database, "update noetl.queue set status = 'cancelled' where status in ('queued', 'retry')")
    faults = await found(database, Scope(since_seconds=60))
    assert faults == {check: {"half", "fresh", "child"} for check in ("verify_visits", "verify_standstill")}


async def test_an_execution_is_looked_into_with_its_children_all_the_way_down(database: Database) -> None:
    """Those that ended and those that run; and with no other."""
    of_children = "execution_id in (select execution_id from noetl.execution where path = 'child')"
    await execute(database, f"update noetl.execution_state set turn = turn + 1 where {of_children}")
    assert await found(database, Scope(await id_of(database, "done"))) == {}
    for path in ("family", "calling", "adopting"):
        assert await found(database, Scope(await id_of(database, path))) == {"verify_turn_numbers": {"child"}}


async def test_an_execution_that_is_not_there_is_told(database: Database) -> None:
    """Nothing to look into is no good news."""
    with pytest.raises(NotFoundFault, match="no execution 5"):
        await found(database, Scope(5))


async def test_pages_leave_nobody_out(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one execution a page and two ids at a time, everything is seen as before."""
    monkeypatch.setattr("noetl_broker.store.verify.PAGE_TURNS", 1)
    monkeypatch.setattr("noetl_broker.store.verify.IDS_AT_ONCE", 2)
    await execute(database, "update noetl.execution_state set turn = turn + 1")
    paths = {row[0] for row in await rows(database, "select path from noetl.execution where path is not null")}
    assert await found(database) == {"verify_turn_numbers": paths}
