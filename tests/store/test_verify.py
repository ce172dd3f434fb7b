"""`verify` reports each invariant that a test breaks, with its execution."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest
from pytest_postgresql.executors import NoopExecutor

from noetl_broker.errors import NotFoundFault
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.admin.verify import CHECKS, TABLES, TURNS, VerifyScope, verify
from tests.brokers import drain, execute, rows, value
from tests.postgres import Copies, Database
from tests.sessions import Session, close_pools, session
from tests.store.breaches import BREACHES, DEEP_BREACHES, Breach
from tests.store.histories import make_histories

EVERYTHING = VerifyScope()
PATHS = """
    select x.execution_id, x.path from noetl.execution x
    union
    select e.execution_id, c.path from noetl.event e join noetl.catalog c on c.catalog_id = e.catalog_id"""
Found = dict[str, set[str]]  # paths of executions with faults, by statement or invariant


@pytest.fixture(scope="module")
def histories(copies: Copies, migrated_template: NoopExecutor) -> Iterator[Database]:
    """Yield a database with executions of every kind; each test gets a copy."""
    with copies(migrated_template.template_dbname) as database:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(make_histories(database))
            runner.run(close_pools())
        yield database


@pytest.fixture
async def database(copies: Copies, histories: Database) -> AsyncIterator[Database]:
    """Yield a copy that the test may damage."""
    with copies(histories.name) as database:
        yield database
        await close_pools()


async def id_of(database: Database, path: str) -> int:
    """Return the first execution of a path."""
    return int(await value(database, "select min(execution_id) from noetl.execution where path = $1", path))


async def verify_all(database: Database, scope: VerifyScope = EVERYTHING, *, deep: bool = False) -> Found:
    """Run `verify`. Return the paths with faults by statement, or by invariant for the core."""
    async with session(database) as connection:
        return await faults_of(connection, scope, deep=deep)


async def faults_of_each(database: Database, breaches: Iterable[Breach], *, deep: bool = False) -> dict[str, Found]:
    """Write the fault of each breach, verify, and roll back."""
    found: dict[str, Found] = {}
    async with session(database) as connection:
        paths = dict(await connection.fetch("select path, min(execution_id) from noetl.execution group by path"))
        for breach in breaches:
            damage = connection.transaction(isolation="repeatable_read")
            await damage.start()
            try:
                await connection.execute(breach.statements.replace(":id", str(paths[breach.path])))
                found[breach.what] = await faults_of(connection, deep=deep)
            finally:
                await damage.rollback()
    return found


def expected(breaches: Iterable[Breach]) -> dict[str, Found]:
    """What `verify` must report for each breach: by these checks only, and for the damaged execution only."""
    return {breach.what: {check: {breach.path} for check in breach.seen} for breach in breaches}


async def faults_of(connection: Session[Any], scope: VerifyScope = EVERYTHING, *, deep: bool = False) -> Found:
    """Verify in a session."""
    report = await verify(connection, scope, deep=PlaybookRules() if deep else None)
    paths = {row[0]: row[1] for row in await connection.fetch(PATHS)}
    faults: Found = defaultdict(set)
    for check, _, broken, examples in ((v.check, v.most, v.broken, v.examples) for v in report.verdicts):
        assert broken == len(examples)
        for execution_id, detail in examples:
            assert detail
            faults[check.statement or check.invariant].add(paths[execution_id])
    return dict(faults)


async def test_undamaged_executions_of_every_kind_pass(database: Database) -> None:
    """Ended, failed, cancelled and running, with retries, loops, children, items, duplicate and late events."""
    kinds = "select count(distinct status) from noetl.execution"
    assert await value(database, kinds) == 4
    assert await value(database, "select count(*) from noetl.event where event_type = 'action_retry'") == 3
    assert await value(database, "select count(*) from noetl.turn where outcome <> 'decided'") > 1
    assert await verify_all(database, deep=True) == {}


async def test_each_breach_is_reported_by_its_checks_only(database: Database) -> None:
    """On the damaged execution only."""
    assert await faults_of_each(database, BREACHES) == expected(BREACHES)


async def test_a_deep_check_reports_differences_of_the_core(database: Database) -> None:
    """It compares rows with the replayed turns, and conditions with their events."""
    assert await faults_of_each(database, DEEP_BREACHES, deep=True) == expected(DEEP_BREACHES)


async def test_a_deep_check_reports_a_missing_playbook(database: Database) -> None:
    """Only the execution of that playbook is reported."""
    await execute(database, "delete from noetl.catalog where path = 'half'")
    faults = await verify_all(database, deep=True)
    assert faults["I12"] == {"half"}


def test_every_check_has_a_breach() -> None:
    """A check without a breach may check nothing."""
    seen = set().union(*(breach.seen for breach in (*BREACHES, *DEEP_BREACHES)))
    assert {check.statement or check.invariant for check in (*CHECKS, TABLES, TURNS)} == seen


async def test_a_child_that_runs_after_its_parent_was_cancelled_is_reported(database: Database) -> None:
    """It received no cancel, and it cannot move."""
    calling = await id_of(database, "calling")
    await execute(database, "select noetl.cancel_execution($1, 'enough')", calling)
    await drain(database)
    await execute(database, "update noetl.execution set status = 'RUNNING' where parent_execution_id = $1", calling)
    faults = await verify_all(database)
    assert faults == {check: {"child"} for check in ("verify_ends", "verify_standstill", "verify_after_end")}


async def test_the_visit_limit_of_a_playbook_counts(database: Database) -> None:
    """`metadata.max_visits` may be larger than the setting."""
    smaller = """rules = (rules::jsonb || '{"max_visits": 2}')::json"""
    await execute(database, f"update noetl.execution set {smaller} where path = 'done'")
    assert await verify_all(database) == {"verify_limits": {"done"}}
    larger = "update noetl.catalog set content = replace(content, 'path: done', 'path: done, max_visits: 99')"
    await execute(database, larger)
    assert await verify_all(database) == {}


async def test_a_restored_database_passes(database: Database) -> None:
    """A restore loads each table in its own transaction, so transaction ids say nothing."""
    for table in ("event", "turn"):
        await execute(
            database,
            f"create table public.kept as select * from noetl.{table}; set noetl.writer = 'broker';"
            f" truncate noetl.{table}; insert into noetl.{table} select * from public.kept; drop table public.kept",
        )
    distinct = "select count(distinct xmin::text) from noetl.{}"
    assert [await value(database, distinct.format(table)) for table in ("event", "turn")] == [1, 1]
    assert await verify_all(database) == {}


async def test_an_unreadable_state_stops_no_check(database: Database) -> None:
    """All checks still run over it."""
    for state in ("5", "[]", '{"tokens": 5, "total": "x"}', '{"tokens": [5, {}], "total": []}'):
        await execute(database, f"update noetl.execution_state set tokens = '{state}'")
        assert (await verify_all(database)).keys() <= {"verify_visits", "verify_waits"}


async def test_foreign_events_pass(database: Database) -> None:
    """Ends, completions and starts from outside are recorded and change nothing."""
    execution_id = await id_of(database, "half")
    for event_type in ("step_completed", "step_completed", "execution_complete", "step_started"):
        await execute(
            database,
            "insert into noetl.event (execution_id, event_type, node_id, node_name, parent_event_id)"
            " values ($1, $2, $3, 'a', 5)",
            execution_id, event_type, f"{execution_id}:a",
        )  # fmt: skip
    assert await verify_all(database) == {}
    await drain(database)
    assert await verify_all(database) == {}


LOST = "delete from noetl.event where event_type = 'execution_complete' and execution_id = $1"
LONG_AGO = """
    update noetl.execution_state set last_at = last_at - interval '2 hours';
    update noetl.execution set started_at = started_at - interval '2 hours'"""


async def test_verify_checks_recent_changes_by_default(database: Database) -> None:
    """The times of turns and starts count. A range has two ends."""
    done, late = await id_of(database, "done"), await id_of(database, "late")
    await execute(database, LONG_AGO)
    for execution_id in (done, late):
        await execute(database, LOST, execution_id)
    assert await verify_all(database, VerifyScope(which=Filter(since=3600))) == {}
    assert await verify_all(database, VerifyScope(which=Filter(since=3 * 3600))) == {"verify_ends": {"done", "late"}}
    assert await verify_all(database, VerifyScope()) == {"verify_ends": {"done", "late"}}
    assert await verify_all(database, VerifyScope(done)) == {"verify_ends": {"done"}}
    await execute(database, "update noetl.execution_state set last_at = now() where execution_id = $1", done)
    assert await verify_all(database, VerifyScope(which=Filter(since=3600))) == {"verify_ends": {"done"}}


async def test_an_old_execution_that_cannot_move_is_reported(database: Database) -> None:
    """This check covers all running executions, so the alarm stays."""
    await execute(database, LONG_AGO)
    await execute(database, "update noetl.queue set status = 'cancelled' where status in ('queued', 'retry')")
    faults = await verify_all(database, VerifyScope(which=Filter(since=60)))
    assert faults == {check: {"half", "fresh", "child"} for check in ("verify_visits", "verify_standstill")}


async def test_verify_of_one_execution_includes_all_descendants(database: Database) -> None:
    """Those that ended and those that run, and no other execution."""
    of_children = "execution_id in (select execution_id from noetl.execution where path = 'child')"
    await execute(database, f"update noetl.execution_state set turn = turn + 1 where {of_children}")
    assert await verify_all(database, VerifyScope(await id_of(database, "done"))) == {}
    for path in ("family", "calling", "adopting"):
        assert await verify_all(database, VerifyScope(await id_of(database, path))) == {
            "verify_turn_numbers": {"child"}
        }


async def test_verify_reports_an_unknown_execution(database: Database) -> None:
    """An empty result would look like success."""
    with pytest.raises(NotFoundFault, match="no execution 5"):
        await verify_all(database, VerifyScope(5))


async def test_small_pages_skip_no_execution(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page has one execution and two ids."""
    monkeypatch.setattr("noetl_broker.store.admin.verify.PAGE_TURNS", 1)
    monkeypatch.setattr("noetl_broker.store.admin.verify.IDS_AT_ONCE", 2)
    await execute(database, "update noetl.execution_state set turn = turn + 1")
    paths = {row[0] for row in await rows(database, "select path from noetl.execution where path is not null")}
    assert await verify_all(database) == {"verify_turn_numbers": paths}
