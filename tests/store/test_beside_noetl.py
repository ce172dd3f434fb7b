"""Plain INSERTs of a NoETL server drive executions, and our functions work on its tables."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from textwrap import dedent
from typing import Any

import pytest

from noetl_broker.history.fork_plan import plan_fork
from noetl_broker.history.replay import replay_history
from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.admin import recovery
from noetl_broker.store.admin.catalog import register
from noetl_broker.store.admin.history import load_history
from noetl_broker.store.connect.connection import connect
from noetl_broker.store.connect.migrations import migrate
from tests.brokers import broken_invariants, drain, execute, rows, value
from tests.postgres import Copies, Database
from tests.sessions import PATIENCE_SECONDS, blocked, close_pools, refused, session
from tests.store import noetl_server

EXECUTION = 9


@pytest.fixture(scope="module")
def migrated_server(copies: Copies) -> Iterator[Database]:
    """Yield a migrated database of a NoETL server with one finished execution; each test gets a copy."""
    with copies("template0") as database:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(_make_server(database))
        yield database


async def _make_server(database: Database) -> None:
    await execute(database, noetl_server.TABLES)
    await execute(database, noetl_server.HISTORY)
    await migrate(database)
    await execute(
        database,
        "insert into noetl.catalog (catalog_id, path, version, kind, content) values (78, 'mine', 1, 'Playbook', $1)",
        dedent(noetl_server.PLAYBOOK),
    )
    await close_pools()


@pytest.fixture
async def server_database(copies: Copies, migrated_server: Database) -> AsyncIterator[Database]:
    """Yield a copy for one test."""
    with copies(migrated_server.name) as database:
        yield database
        await close_pools()


async def test_migrate_blocks_no_events_while_it_indexes_the_queue(empty_database: Database) -> None:
    """A session that changes the queue keeps `migrate` waiting; events are written meanwhile."""
    await execute(empty_database, noetl_server.TABLES)
    await execute(empty_database, noetl_server.HISTORY)
    async with session(empty_database) as worker, session(empty_database) as server:
        await worker.execute("begin; lock table noetl.queue in row exclusive mode")
        migrating = asyncio.create_task(migrate(empty_database))
        await blocked(server)
        await server.execute(
            """insert into noetl.event (execution_id, catalog_id, event_id, event_type)
            values (5, 77, noetl.snowflake_id(), 'step_result')"""
        )
        assert not migrating.done()
        await worker.execute("commit")
        await migrating


async def test_events_from_before_the_migration_are_no_mail(server_database: Database) -> None:
    """`verify` does not report that they have no turns, and `put_back` finds no lost mail."""
    assert await value(server_database, "select count(*) from noetl.inbox") == 0
    await drain(server_database)
    assert await value(server_database, "select count(*) from noetl.turn") == 0
    assert await value(server_database, "select noetl.put_back($1)", noetl_server.OLD) == 0
    assert await broken_invariants(server_database) == {}


async def test_events_of_executions_from_before_the_migration_are_recorded(server_database: Database) -> None:
    """The old broker started them, so no event changes them."""
    await execute(
        server_database,
        """insert into noetl.event (execution_id, catalog_id, event_id, event_type, node_id, node_name, result)
        values (5, 77, noetl.snowflake_id(), 'action_completed', '5:b', 'b', '{}')""",
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        await drain(server_database)
    assert await rows(server_database, "select execution_id, outcome from noetl.turn") == [(5, "unknown_execution")]
    assert await value(server_database, "select count(*) from noetl.inbox") == 0
    assert await broken_invariants(server_database) == {}


async def test_the_broker_takes_over_an_execution_that_a_noetl_server_started(server_database: Database) -> None:
    """Its worker reads the job's columns. Its steps get node ids and states; missing transitions are added."""
    await execute(server_database, noetl_server.START.format(execution_id=EXECUTION))
    await drain(server_database)
    [(queue_id, action, context)] = await rows(
        server_database, "select queue_id, action, context from noetl.queue where execution_id = $1", EXECUTION
    )
    assert queue_id > 1 << 40
    assert json.loads(action)["args"] == {"n": 20}
    assert context["workload"] == {"n": 20}
    steps = "select step_name, ordinal, status from noetl.workflow where execution_id = $1 order by ordinal"
    assert await rows(server_database, steps, EXECUTION) == [
        ("start", 0, "COMPLETED"),
        ("a", 1, "RUNNING"),
        ("b", 2, "PENDING"),
        ("end", 3, "PENDING"),
    ]
    arcs = "select from_step, to_step from noetl.transition where execution_id = $1 order by 1, 2"
    assert await rows(server_database, arcs, EXECUTION) == [("a", "b"), ("a", "end"), ("b", "end"), ("start", "a")]
    # An upsert writes the same id and content; only INSERTs are mail.
    await execute(
        server_database,
        """insert into noetl.event (execution_id, catalog_id, event_id, event_type, context)
        select execution_id, catalog_id, event_id, event_type, context
        from noetl.event where execution_id = 9 and event_type = 'execution_start'
        on conflict (execution_id, event_id) do update set context = excluded.context""",
    )
    assert await value(server_database, "select count(*) from noetl.inbox") == 0


async def test_the_broker_runs_an_execution_that_a_noetl_server_started(server_database: Database) -> None:
    """The server and its worker write text with plain INSERTs. An answer that comes twice is a duplicate."""
    await execute(server_database, noetl_server.START.format(execution_id=EXECUTION))
    await drain(server_database)
    await answer(server_database, "a", {"n": 21})
    await answer(server_database, "a", {"n": 1})
    await drain(server_database)
    await answer(server_database, "b", 1)
    await drain(server_database)
    statement = "select event_type, node_name from noetl.event where execution_id = $1 order by created_at"
    assert [row for row in await rows(server_database, statement, EXECUTION) if row[0] != "step_result"] == [
        ("execution_start", "mine"),
        ("step_started", "a"),
        ("action_completed", "a"),
        ("action_completed", "a"),
        ("step_completed", "a"),
        ("step_started", "b"),
        ("action_completed", "b"),
        ("step_completed", "b"),
        ("execution_complete", "mine"),
    ]
    outcomes = await rows(server_database, "select outcome from noetl.turn where execution_id = 9 order by turn")
    assert outcomes == [("decided",), ("decided",), ("duplicate",), ("decided",)]
    assert await rows(
        server_database, "select status, result, error from noetl.execution where execution_id = $1", EXECUTION
    ) == [("COMPLETED", {"answer": 21}, None)]
    assert await broken_invariants(server_database) == {}


async def test_an_execution_that_a_noetl_server_started_can_be_forked(server_database: Database) -> None:
    """Results are copied as text. A replay of the fork finds no difference."""
    await execute(server_database, noetl_server.START.format(execution_id=EXECUTION))
    await drain(server_database)
    await answer(server_database, "a", {"n": 21})
    await drain(server_database)
    connection = await connect(server_database, name="test")
    history = await load_history(connection, EXECUTION, PlaybookRules())
    fork = await recovery.fork_execution(connection, EXECUTION, plan_fork(history, "b"))
    await drain(server_database)
    await execute(
        server_database,
        "select noetl.complete_job(queue_id, 'w', attempts, '1') from noetl.lease_jobs('w', 9) where execution_id = $1",
        fork,
    )
    await drain(server_database)
    statement = "select status, result from noetl.execution where execution_id = $1"
    assert await rows(server_database, statement, fork) == [("COMPLETED", {"answer": 21})]
    history = await load_history(connection, fork, PlaybookRules())
    await connection.close()
    assert replay_history(history)[1] == []


# Writes an answer to the step `a` of execution $1, with an event id of 1000 * $1.
ANSWER = """
insert into noetl.event (execution_id, catalog_id, event_id, event_type, node_id, node_name, created_at, result, error)
select x.id, 78, 1000 * x.id, case when $4::text is null then 'action_completed' else 'action_error' end, x.id || ':a',
  'a', coalesce($3::text::timestamp, current_timestamp), $2, $4
from (select $1::bigint as id) x"""


async def answered(
    database: Database, *answers: tuple[str | None, str | None, str | None]
) -> list[tuple[int, dict[str, Any]]]:
    """Start an execution for each result, time and error, write that answer, and return the executions' errors."""
    ids = range(101, 101 + len(answers))
    for execution_id in ids:
        await execute(database, noetl_server.START.format(execution_id=execution_id))
    await drain(database)
    for execution_id, given in zip(ids, answers, strict=True):
        await execute(database, ANSWER, execution_id, *given)
    await drain(database)
    outcomes = "select distinct outcome from noetl.turn where event_id = 1000 * execution_id"
    assert await rows(database, outcomes) == [("decided",)]
    found = "select execution_id, error from noetl.execution where execution_id = any($1) order by 1"
    return [(execution_id, error or {}) for execution_id, error in await rows(database, found, [*ids])]


async def test_a_result_that_is_not_json_fails_the_step(server_database: Database) -> None:
    """The execution ends with the reason. Large results are loaded after the claim, so they fail later."""
    hashes = await value(server_database, "select string_agg(md5(n::text), ',') from generate_series(1, 20000) n")
    texts = ("{broken", "NaN", "'single'", "[1,", '{"a": "\\u0000"}', '"\\ud800"', f'{{"n": [{hashes[:300]}')
    found = await answered(server_database, *((text, None, None) for text in (*texts, f'{{"n": [{hashes}')))
    assert [error for error in found if "no JSON" not in error[1].get("message", "")] == []
    assert len(found) == len(texts) + 1
    assert await broken_invariants(server_database) == {}


async def test_a_plain_text_error_becomes_the_message(server_database: Database) -> None:
    """The `error` column of the server is text."""
    [(_, error)] = await answered(server_database, (None, None, "connection refused"))
    assert error["message"] == "connection refused"


async def test_an_empty_result_text_is_no_result(server_database: Database) -> None:
    """A condition that reads `a.n` reports an undefined value."""
    found = await answered(server_database, *((text, None, None) for text in ("null", "{}", "", None)))
    assert [error["template"] for _, error in found] == ["{{ a.n > 20 }}"] * 4


async def test_a_start_whose_context_is_not_json_fails_the_execution(server_database: Database) -> None:
    """The `catalog_id` gives the version; the payload is unreadable."""
    await execute(
        server_database,
        """insert into noetl.event (execution_id, catalog_id, event_id, event_type, node_name, context)
        values (9, 78, 1, 'execution_start', 'mine', '{"path": ')""",
    )
    await drain(server_database)
    error = await value(server_database, "select error from noetl.execution where execution_id = 9")
    assert error == {"message": "the context of execution_start is no JSON"}
    assert await broken_invariants(server_database) == {}


async def test_a_time_that_python_cannot_hold_is_read(server_database: Database) -> None:
    """The column of the server has no check against infinity."""
    instants = ("infinity", "-infinity", "290000-01-01", "4000-01-01 BC", "9999-12-31 23:59:59.999999")
    found = await answered(server_database, *(('{"n": 21}', instant, None) for instant in instants))
    assert [error for _, error in found] == [{}] * len(instants)
    assert await broken_invariants(server_database, ignore=("every execution ended",)) == {}


async def test_the_time_zone_of_a_worker_does_not_change_event_times(server_database: Database) -> None:
    """`created_at` has no zone there. All our functions write UTC."""
    await execute(server_database, noetl_server.START.format(execution_id=EXECUTION))
    await drain(server_database)
    async with session(server_database) as own:
        for zone in ("Asia/Tokyo", "America/Lima"):
            await own.execute(f"set timezone = '{zone}'")
            await own.execute(
                "select noetl.complete_job(queue_id, 'w', attempts, '{\"n\": 21}') from noetl.lease_jobs('w')"
            )
            await drain(server_database)
    statement = "select event_type from noetl.event where execution_id = $1 order by created_at"
    assert [kind for (kind,) in await rows(server_database, statement, EXECUTION)] == [
        "execution_start",
        *("step_started", "action_started", "action_completed", "step_completed") * 2,
        "execution_complete",
    ]


async def test_our_functions_work_on_tables_of_a_noetl_server(server_database: Database) -> None:
    """They write text and JSON into columns of any type: start, lease, answer and cancel."""
    first = await value(server_database, """select noetl.start_execution('mine', '{"n": 5}')""")
    await drain(server_database)
    assert await value(server_database, "select context ->> 'n' from noetl.queue where status = 'queued'") == "5"
    lease = "select queue_id, attempts from noetl.lease_jobs('w')"
    [(queue_id, attempt)] = await rows(server_database, lease)
    assert await value(server_database, "select noetl.complete_job($1, 'w', $2, $3)", queue_id, attempt, {"n": 1})
    second = await value(server_database, "select noetl.start_execution('mine')")
    await drain(server_database)
    one, many = "complete_and_lease($1, 'w', $2)", "complete_jobs_and_lease('w', array[$1::bigint], array[$2::int])"
    for state in ("", "slow"):  # of this mark the calls lease in their two ways
        for call in (one, many):
            async with session(server_database) as own:
                await own.execute("update noetl.queue set status = 'queued', attempts = 0 where status = 'leased'")
                await own.execute(f"select set_config('noetl.lease_mark', '{state}', false)")
                leased = await own.fetch(
                    f"select node_id from noetl.{call} where node_id is not null", queue_id, attempt
                )
            assert [row["node_id"] for row in leased] == [f"{second}:a"]
    assert await value(server_database, "select noetl.cancel_execution($1)", second)
    await drain(server_database)
    assert await rows(server_database, "select execution_id, status, result from noetl.execution order by 1") == [
        (first, "COMPLETED", {"answer": 1}), (second, "CANCELLED", None),
    ]  # fmt: skip


async def test_a_playbook_is_registered_in_an_empty_catalog_of_a_noetl_server(empty_database: Database) -> None:
    """The catalog takes known kinds only. A trigger adds ours with the first playbook."""
    await execute(empty_database, noetl_server.TABLES)
    await migrate(empty_database)
    assert await value(empty_database, "select count(*) from noetl.resource") == 0
    connection = await connect(empty_database, name="test")
    text = dedent(noetl_server.PLAYBOOK)
    [first] = await register(connection, [(compile_playbook(text, rules=PlaybookRules()), text)])
    [again] = await register(connection, [(compile_playbook(text, rules=PlaybookRules()), text)])
    await connection.close()
    assert (first.version, first.new, again.version, again.new) == (1, True, 1, False)
    assert await rows(empty_database, "select name from noetl.resource") == [("Playbook",)]
    async with refused("23503"):
        await execute(empty_database, "insert into noetl.catalog (path, kind, content) values ('x', 'Dataset', '')")


async def answer(database: Database, step: str, data: Any) -> None:
    """Write the events that a worker of the server writes for a job: the answer and `step_result`."""
    envelope = json.dumps({"id": "job", "status": "success", "data": data})
    for kind, result in (("action_completed", envelope), ("step_result", json.dumps(data))):
        await execute(
            database,
            """insert into noetl.event (
                execution_id, catalog_id, event_id, event_type, node_id, node_name, status, result, context
            ) values ($1, 78, noetl.snowflake_id(), $2, $3, $4, 'COMPLETED', $5, '{}')""",
            EXECUTION, kind, f"{EXECUTION}:{step}", step, result,
        )  # fmt: skip
