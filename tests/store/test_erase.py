"""`noetl.erase_execution`: no value of an execution is left in any table, and what is left still holds."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from noetl_broker.broker.model.values import JSON
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin import archive
from noetl_broker.store.admin.verify import VerifyScope, verify
from tests.brokers import broken_invariants, drain, execute, register, rows, start, value
from tests.periods import LONG_AGO, add_period, set_clock
from tests.postgres import Database, named
from tests.sessions import blocked, session
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
    select noetl.log_job(q.queue_id, 'w', q.attempts, 'info', $1),
      noetl.report_progress(q.queue_id, 'w', q.attempts, jsonb_build_object('done', 1, 'total', 2, 'failed', 1, 'errors', jsonb_build_object($1, 1))),
      case q.node_name
        when 'fails' then noetl.fail_job(q.queue_id, 'w', q.attempts, jsonb_build_object('message', $1::text, 'who', $1::text))
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
            database, f'select count(*) from {schema}."{table}" t where t."{column}"::text like \'%\' || $1 || \'%\'', text
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
    """Of the execution and of its child; that of another customer stays. `verify` finds no fault, also where it replays."""
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
