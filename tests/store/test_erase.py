"""`noetl.erase_execution`: no value of an execution is left in any table, and what is left still holds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin import archive
from noetl_broker.store.admin.verify import VerifyScope, verify
from tests.brokers import broken_invariants, drain, execute, register, rows, start, value
from tests.docs.pages import quoted, read_page, table_rows
from tests.periods import LONG_AGO, add_period, set_clock
from tests.postgres import Database, named
from tests.sessions import blocked, refused, session
from tests.undos import ORDER, UNDO, work

MARK = "ann.marker@example.org"
OTHER = "bob.kept@example.org"
PARENT = """
workload: {customer: nobody}
workflow:
  - {step: start, next: [each, pay, ask, call, fails, away]}
  - step: each
    type: iterator
    collection: ["{{ customer }}", "{{ customer }}!"]
    element: who
    distribute: true
    task: {type: python, args: {who: "{{ who }}"}, code: "def main(who): return who"}
    next: end
  - {step: pay, type: wait, signal: "paid {{ customer }}", key: "{{ customer }}", next: end}
  - {step: ask, type: approval, title: "{{ customer }}?", details: {who: "{{ customer }}"}, next: end}
  - {step: call, type: playbook, path: child, args: {customer: "{{ customer }}"}, next: end}
  - {step: fails, type: python, code: "def main(): ...", args: {who: "{{ customer }}"}, on_error: continue, next: end}
  - step: away
    type: python
    code: "def main(): ..."
    compensate: {type: python, code: "def main(): ...", args: {who: "{{ workload.customer }}"}}
    next: end
  - {step: end, result: "{{ each }}"}
"""
CHILD = """
workflow:
  - {step: start, next: [wait, work]}
  - {step: wait, type: wait, signal: mine, next: end}
  - {step: work, type: python, code: "def main(): ...", args: {who: "{{ workload.customer }}"}, next: end}
  - {step: end, result: "{{ work }}"}
"""
WORK = """
    select noetl.log_job(q.queue_id, 'w', q.attempts, 'info', $1), noetl.report_progress(q.queue_id, 'w', q.attempts,
        jsonb_build_object('done', 1, 'total', 2, 'failed', 1, 'errors', jsonb_build_object($1, 1))),
      case q.node_name
        when 'fails' then noetl.fail_job(q.queue_id, 'w', q.attempts, jsonb_build_object('message', $1::text, 'a', $1))
        else noetl.complete_job(q.queue_id, 'w', q.attempts, to_jsonb($1::text))
      end
    from noetl.lease_jobs('w', 1000, 60) q
"""
START = "select noetl.start_execution('parent', $1, idempotency_key => $2)"
ERASE = "select noetl.erase_execution($1)"
COLUMNS = """
    select c.table_schema::text, c.table_name::text, c.column_name::text
    from information_schema.columns c
    join information_schema.tables t using (table_schema, table_name)
    where t.table_type = 'BASE TABLE' and c.table_schema like 'noetl%'
    order by 1, 2, 3
"""


async def where_is(database: Database, text: str) -> list[str]:
    """Return the columns of all tables of all schemas in which a text stands."""
    return [
        f"{schema}.{table}.{column}"
        for schema, table, column in await rows(database, COLUMNS)
        if await value(
            database, f'select count(*) from {schema}."{table}" t where position($1 in t."{column}"::text) > 0', text
        )
    ]


async def live(database: Database, customer: str, *, cancel: bool = False) -> int:
    """Let an execution end that has this customer in each kind of value; return its id."""
    execution = int(await value(database, START, {"customer": customer}, f"key of {customer}"))
    await execute(database, "select noetl.send_signal('paid ' || $1, $1, to_jsonb($1::text), $1)", customer)
    await drain(database)
    child = await value(database, "select execution_id from noetl.execution where parent_execution_id = $1", execution)
    await execute(database, "select noetl.signal_execution($1, 'mine', to_jsonb($2::text), $2)", child, customer)
    await execute(database, WORK, customer)
    await drain(database)
    if cancel:
        await execute(database, "select noetl.cancel_execution($1, $2)", execution, customer)
    await execute(
        database,
        "select noetl.decide_approval(execution_id, node_id, true, $1, jsonb_build_object('comment', $1::text))"
        " from noetl.pending_approvals",
        customer,
    )
    await drain(database)
    await execute(database, WORK, customer)
    await drain(database)
    return execution


async def erase(database: Database, execution: int) -> Any:
    """Erase an execution; return the answer."""
    return await value(database, ERASE, execution)


@pytest.fixture
async def families(database: Database) -> None:
    """Register the playbooks."""
    await register(database, PARENT, path="parent")
    await register(database, CHILD, path="child")


@pytest.mark.usefixtures("families")
@pytest.mark.parametrize("archived", [False, True])
async def test_no_value_is_left_in_any_table(database: Database, archived: bool) -> None:
    """Of the execution and of its child; that of another customer stays. `verify` finds no fault, even a deep one."""
    if archived:
        await add_period(database, LONG_AGO)
        await set_clock(database, LONG_AGO)
    execution, other = await live(database, MARK), await live(database, OTHER)
    held = {place.rpartition(".")[0].partition(".")[2] for place in await where_is(database, MARK)}
    wanted = {"event", "queue", "workload", "iteration", "wait", "log", "execution", "start_key", "signal"}
    assert wanted - held == set()
    if archived:
        async with session(database) as connection:
            [period] = [one for one in await archive.list_periods(connection, 0) if one.name == LONG_AGO]
            assert await archive.archive_period(connection, period, 0) == ()
    kept = await where_is(database, OTHER)
    assert await erase(database, execution) == {"executions": 2}
    assert await where_is(database, MARK) == []
    assert await where_is(database, OTHER) == kept
    assert await rows(
        database, "select status, erased_at is not null from noetl.execution where execution_id = $1", execution
    ) == [("COMPLETED", True)]
    assert await broken_invariants(database) == {}
    async with session(database) as connection:
        report = await verify(connection, VerifyScope(), deep=PlaybookRules())
    assert (report.executions, report.broken) == (0 if archived else 4, 0)
    assert other


async def test_each_column_says_what_becomes_of_it(database: Database) -> None:
    """A new column needs a row of `noetl.erasure`. Some tables are only in buckets, or beside a NoETL server."""
    declared = {*await rows(database, "select table_name, column_name from noetl.erasure()")}
    there = {(table, column) for schema, table, column in await rows(database, COLUMNS) if schema == named("noetl")}
    assert there - declared == set()
    assert {table for table, _ in declared - there} <= {"signal_copy", "ended_job"}
    assert len(declared) == await value(database, "select count(*) from noetl.erasure()")


async def test_the_page_has_what_becomes_of_each_column(database: Database) -> None:
    """The table of data-of-persons is that of `noetl.erasure`."""
    kinds = ("erased", "digest", "kept")
    declared: dict[str, dict[str, set[str]]] = {}
    for table, column, becomes in await rows(database, "select table_name, column_name, becomes from noetl.erasure()"):
        of = declared.setdefault(table, {kind: set() for kind in kinds})
        of["erased" if becomes == "removed" else becomes].add(column)
    page = {
        name: dict(zip(kinds, ({*quoted(cell)} for cell in cells), strict=True))
        for tables, *cells in table_rows(read_page("data-of-persons"), "| table | erased |")
        for name in quoted(tables)
    }
    assert page == declared


OF_PARENT = "where execution_id = (select parent_execution_id from noetl.execution where execution_id = $1)"
REFUSALS = {
    "update noetl.execution set status = 'RUNNING' where execution_id = $1": "it has not ended: it is RUNNING",
    f"update noetl.execution set status = 'RUNNING' {OF_PARENT}": "which it belongs to, has not ended",
    "insert into noetl.execution (execution_id, parent_execution_id) values (5, $1)": "is erased with it, has not",
    "insert into noetl.execution (execution_id, forked_from) values (5, $1)": "which is erased with it, has not ended",
    "update noetl.execution set undo_status = 'left' where execution_id = $1": "it has something left to undo",
    f"update noetl.execution set undo_status = 'undoing' {OF_PARENT}": "which it belongs to, is undoing what it did",
    "insert into noetl.event (execution_id, event_type) values ($1, 'execution_undo')": "it is undoing what it did",
    "insert into noetl.event (execution_id, event_type) values ($1, 'execution_cancel')": "events that no broker",
    "update noetl.queue set status = 'leased' where execution_id = $1": "it has a job that a worker holds",
}


@pytest.mark.usefixtures("families")
async def test_it_is_refused_while_something_may_still_need_a_value(database: Database) -> None:
    """Each reason is said, in a preview too, and nothing is erased."""
    await live(database, MARK)
    child = await value(database, "select max(execution_id) from noetl.execution")
    for change, reason in REFUSALS.items():
        async with session(database) as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(change, child)
            preview = await connection.fetchval("select noetl.erase_execution($1, true)", child)
            assert reason in preview["refused"]
            async with refused("NB409", reason):
                await connection.fetchval(ERASE, child)
            await transaction.rollback()
    assert await value(database, "select count(erased_at) from noetl.execution") == 0
    assert await value(database, "select noetl.erase_execution($1, true)", child) == {"executions": 1, "refused": None}


async def test_nothing_begins_with_erased_values(database: Database) -> None:
    """Undo, fork and a parent's undo are refused. A fork that has begun is waited for, and then it is live."""
    await register(database, ORDER)
    [execution] = await start(database)
    await work(database)
    async with session(database) as one, session(database) as other:
        transaction = one.transaction()
        await transaction.start()
        fork = 'select noetl.fork_execution($1, \'{"results": [], "turn": 1, "anew": true}\')'
        await one.fetchval(fork, execution)
        erasing = asyncio.create_task(other.fetchval(ERASE, execution))
        await blocked(one)
        await transaction.commit()
        async with refused("NB409", "which is erased with it, has not ended"):
            await erasing
        await work(database)
        assert await erase(database, execution) == {"executions": 2}
        for statement in (UNDO, fork, "select noetl.settle_undo($1, 'charge', 'by hand')"):
            async with refused("NB409", f"execution {execution} was erased"):
                await other.fetchval(statement, execution)
    assert await broken_invariants(database) == {}


async def test_an_undo_needs_the_values_of_the_children(database: Database) -> None:
    """A child whose success would be undone was erased."""
    await register(database, ORDER, path="child")
    await register(database, "workflow: [{step: start, type: playbook, path: child}]", path="parent")
    [parent] = await start(database, "parent")
    await work(database)
    child = await value(database, "select execution_id from noetl.execution where parent_execution_id = $1", parent)
    await erase(database, child)
    async with (
        session(database) as connection,
        refused("NB409", f"execution {child} was erased, so what it did for execution {parent} cannot be undone"),
    ):
        await connection.fetchval(UNDO, parent)


@pytest.mark.usefixtures("families")
async def test_a_key_that_was_erased_still_starts_nothing(database: Database) -> None:
    """Its digest stands for it. The same payload finds the execution, another one is refused."""
    execution = await live(database, MARK)
    await erase(database, execution)
    key, count = f"key of {MARK}", "select count(*) from noetl.start_key"
    before = await value(database, count)
    many = "select noetl.start_executions('parent', array[$1::jsonb, '{}'], array[$2, $3])"
    for _ in range(2):
        assert await value(database, START, {"customer": MARK}, key) == execution
        assert (await value(database, many, {"customer": MARK}, key, "new"))[0] == execution
    assert await value(database, count) == before + 1
    async with session(database) as connection, refused("NB409", "is used"):
        await connection.fetchval(START, {"customer": OTHER}, key)
    digests = "select idempotency_key like 'sha256:%' from noetl.start_key where execution_id = $1"
    assert await rows(database, digests, execution) == [(True,)]


@pytest.mark.usefixtures("families")
async def test_a_late_event_changes_nothing(database: Database) -> None:
    """The state that is left can be read."""
    execution = await live(database, MARK)
    await erase(database, execution)
    await execute(
        database,
        "insert into noetl.event (execution_id, event_type, node_id, node_name)"
        " values ($1, 'action_completed', $1::bigint || ':fails', 'fails')",
        execution,
    )
    await drain(database)
    assert await value(
        database, "select outcome from noetl.turn where execution_id = $1 order by turn desc limit 1", execution
    ) == "after_end"  # fmt: skip
    assert await erase(database, execution) == {"executions": 2}
    assert await broken_invariants(database) == {}


async def test_what_started_because_of_a_failure_is_erased_too(database: Database) -> None:
    """It has the error. So is a retry, which has the results."""
    await register(database, "workflow: [{step: start, type: python, code: x}]", metadata="on_failure: {path: alarm}")
    await register(database, "workflow: [{step: start, type: python, code: x}]", path="alarm")
    [execution] = await start(database)
    await drain(database)
    job = await rows(database, "select queue_id, attempts from noetl.lease_jobs('w', 1)")
    fail = "select noetl.fail_job($1, 'w', $2, jsonb_build_object('message', $3::text), false)"
    await value(database, fail, *job[0], MARK)
    await work(database)
    assert await erase(database, execution) == {"executions": 2}
    assert await where_is(database, MARK) == []
