"""docs/explanation/data-of-persons.md: each table is on the page, and its statements find and remove a person."""

from __future__ import annotations

import asyncio

from tests.brokers import broken_invariants, drain, execute, register, rows, value
from tests.docs.pages import code_blocks, quoted, read_page, table_rows
from tests.docs.runner import PageRun
from tests.periods import LONG_AGO, add_period, set_clock
from tests.postgres import Database

PAGE = read_page("data-of-persons")
PERSON = "ann@example.org"
BODY = """
workload: {customer: nobody}
workflow:
  - {step: start, next: [each, pay, ask, fails]}
  - step: each
    type: iterator
    collection: ["{{ customer }}"]
    element: who
    distribute: true
    task: {type: python, args: {who: "{{ who }}"}, code: "def main(who): return who"}
    next: end
  - {step: pay, type: wait, signal: paid, key: "{{ customer }}", next: end}
  - {step: ask, type: approval, title: "{{ customer }}", details: {who: "{{ customer }}"}, next: end}
  - {step: fails, type: python, code: "def main(): ...", on_error: continue, next: end}
  - {step: end, result: "{{ each }}"}
"""
WORK = """
    select noetl.log_job(q.queue_id, 'w', q.attempts, 'info', $1),
      case q.node_name
        when 'fails' then noetl.fail_job(q.queue_id, 'w', q.attempts, jsonb_build_object('message', $1::text))
        else noetl.complete_job(q.queue_id, 'w', q.attempts, to_jsonb($1::text))
      end
    from noetl.lease_jobs('w', 10, 60) q
"""
TABLES = """
    select c.relnamespace::regnamespace::text, c.relname::text
    from pg_class c
    where c.relnamespace::regnamespace::text like 'noetl%' and c.relkind in ('r', 'p') and not c.relispartition
"""
LATE = """
    insert into noetl.event (execution_id, event_type, node_id, node_name)
    values ($1::bigint, 'action_completed', $1::bigint || ':fails', 'fails'),
      ($1::bigint, 'execution_start', null, null)
"""


async def _with_the_person(database: Database) -> set[str]:
    """Return the tables in which the person stands; archives are named by their partition."""
    found = await rows(database, TABLES)
    counts = {
        name: await value(
            database, f"select count(*) from {schema}.{name} t where t::text like '%' || $1 || '%'", PERSON
        )
        for schema, name in ((schema, f'"{name}"') for schema, name in found)
    }
    return {name.strip('"') for name, count in counts.items() if count}


async def _live(database: Database) -> int:
    """Let an execution with the person in each kind of value end, in an old period; return its id."""
    await register(database, BODY)
    await add_period(database, LONG_AGO)
    await set_clock(database, LONG_AGO)
    call = "select noetl.start_execution('story', $1, idempotency_key => $2)"
    execution_id = int(await value(database, call, {"customer": PERSON}, PERSON))
    await execute(database, "select noetl.send_signal('paid', $1, to_jsonb($1::text))", PERSON)
    await drain(database)
    await execute(database, WORK, PERSON)
    await execute(
        database, "select noetl.decide_approval(execution_id, node_id, true, $1) from noetl.pending_approvals", PERSON
    )
    await drain(database)
    return execution_id


async def test_each_table_is_listed_once(database: Database) -> None:
    """A new table needs a row."""
    listed = [name for tables, *_ in table_rows(PAGE, "| table |") for name in quoted(tables)]
    assert sorted(listed) == sorted(name for schema, name in await rows(database, TABLES) if schema == "noetl")


async def test_a_person_is_found_and_removed_as_the_page_says(reader: PageRun, database: Database) -> None:
    """No table without values has the person. After the archive is dropped and the statements ran, no table has."""
    execution_id = await _live(database)
    without = {
        name for tables, what, *_ in table_rows(PAGE, "| table |") if "no values" in what for name in quoted(tables)
    }
    held = await _with_the_person(database)
    assert held >= {"event", "queue", "workload", "iteration", "wait", "log", "execution", "signal"}
    assert held & without == set()
    find, remove = code_blocks(PAGE, "sql")
    assert [row[0] for row in (await asyncio.to_thread(reader.sql, find))[0]] == [execution_id]
    archived = await asyncio.to_thread(reader.command.json, "archive", "--older-than", "0s")
    assert archived["periods"][0]["outcome"] == "left now"
    for schema, name in await rows(database, TABLES):
        if schema == "noetl_archive":
            await execute(database, f"drop table noetl_archive.{name}")
    assert await _with_the_person(database) == {"execution", "signal", "start_key"}
    await asyncio.to_thread(reader.sql, remove)
    assert await _with_the_person(database) == set()
    await execute(database, LATE, execution_id)
    await drain(database)
    assert await rows(database, "select outcome from noetl.turn order by turn") == [("after_end",), ("duplicate",)]
    assert await value(database, "select status from noetl.execution") == "COMPLETED"
    assert await broken_invariants(database) == {}
