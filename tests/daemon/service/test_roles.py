"""Broker, worker, producer and reader log in with their roles; each can do its part and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.store.admin import catalog
from noetl_broker.store.connect.session import session as command_session
from noetl_broker.worker import WorkerOptions, run_worker
from tests.brokers import (
    PATIENCE_SECONDS,
    broken_invariants,
    drain,
    execute,
    register,
    rows,
    running,
    start,
    until_ended,
    until_so_many_ended,
    value,
)
from tests.postgres import Database, named
from tests.roles import Logins, login, logins
from tests.sessions import Session, refused, session

SECRET = "s3cr3t-of-the-caller"  # noqa: S105 - it is looked for, and unlocks nothing
ONE_STEP = f"""
workload: {{token: {SECRET}}}
workflow:
- {{step: start, next: a}}
- {{step: a, type: python, args: {{token: "{{{{ workload.token }}}}"}}, code: "{SECRET}", next: end}}
- {{step: end}}
"""
LEASE = "select queue_id, attempts from noetl.lease_jobs($1)"
COMPLETE = "select noetl.complete_job($1, $2, $3, '1')"


@pytest.fixture
async def roles(database: Database) -> AsyncIterator[Logins]:
    """Yield a login of each role."""
    async with logins(database) as made:
        yield made


async def lease(own: Session[Any], worker_id: str) -> tuple[int, int]:
    """Lease one job; give its number and its attempt."""
    (row,) = await own.fetch(LEASE, worker_id)
    return row["queue_id"], row["attempts"]


async def test_an_example_runs_with_each_program_in_its_role(database: Database, roles: Logins) -> None:
    """The producer starts it, the broker decides, the worker works, and the reader sees the end."""
    text = (playbooks_folder() / "diamond.yaml").read_text(encoding="utf-8")
    async with command_session(database, name="register") as connection:
        await catalog.register(connection, [(compile_playbook(text, rules=PlaybookRules()), text)])
    stop = asyncio.Event()
    worker = asyncio.create_task(
        run_worker(WorkerOptions(dsn=roles.worker.dsn, schema=roles.worker.schema, concurrency=2), stop)
    )
    try:
        async with running(roles.broker, reap_seconds=0.1):
            await rows(roles.producer, "select noetl.start_execution('examples/diamond')")
            await until_ended(database)
    finally:
        stop.set()
        await asyncio.wait_for(worker, PATIENCE_SECONDS)
    assert await rows(roles.reader, "select path, status from noetl.executions") == [("examples/diamond", "COMPLETED")]
    assert await broken_invariants(roles.broker) == {}


async def test_an_operator_puts_schedules_and_a_broker_starts_them(database: Database, roles: Logins) -> None:
    """A broker, a producer, a worker and a reader may not put them."""
    await register(database, "workflow: [{step: start, next: end}, {step: end}]")
    put = "select noetl.put_schedule('often', 'story', every => '1 second')"
    for other in (roles.broker, roles.producer, roles.worker, roles.reader):
        async with session(other) as own, refused("42501"):
            await own.execute(put)
    await execute(roles.operator, put)
    async with running(roles.broker):
        await until_so_many_ended(database, 1)
    await execute(roles.operator, "select noetl.delete_schedule('often')")


async def test_a_reader_sees_no_payload_result_error_or_playbook(database: Database, roles: Logins) -> None:
    """Each view has rows, and none shows the secret."""
    await register(database, ONE_STEP)
    (execution,) = await start(database)
    await drain(database)
    await rows(database, LEASE, "w")
    await rows(database, f"select noetl.complete_job(queue_id, 'w', 1, '\"{SECRET}\"') from noetl.queue")
    await execute(
        database, "insert into noetl.dead_letter (event_id, execution_id, reason) values (1, $1, $2)", 1, SECRET
    )
    await execute(
        database,
        "insert into noetl.iteration (execution_id, node_id, index, item) values ($1, 'a', 0, $2)", execution, SECRET,
    )  # fmt: skip
    await execute(
        database,
        "insert into noetl.wait (execution_id, node_id, step, kind, request, names, key)"
        " values ($1, 'w', 'w', 'signal', $2, array[$3], $3)",
        execution, {"x": SECRET}, SECRET,
    )  # fmt: skip
    await execute(
        database, "select noetl.put_schedule('often', 'story', every => '1 day', payload => $1)", {"x": SECRET}
    )
    await execute(database, "update noetl.start_schedule set error = $1", SECRET)
    await execute(database, "select noetl.put_throttle('api', 5)")
    await execute(
        database,
        "insert into noetl.undo (execution_id, node_id, step, visit, turn, error) values ($1, 'a', 'a', 1, 1, $2)",
        execution, {"x": SECRET},
    )  # fmt: skip
    views = [
        row[0]
        for row in await rows(
            database,
            "select table_name::text from information_schema.views where table_schema = 'noetl'"
            " and table_name <> 'pending_approvals' order by table_name",
        )
    ]
    seen = {view: await rows(roles.reader, f"select * from noetl.{view}") for view in views}
    assert [view for view, found in seen.items() if not found or SECRET in str(found)] == []


async def test_a_producer_may_insert_starts_and_cancels(database: Database, roles: Logins) -> None:
    """The database sets ids and times. The case of the type does not matter."""
    await register(database, ONE_STEP)
    insert = "insert into noetl.event (execution_id, event_type, context) values ($1, $2, $3)"
    await execute(roles.producer, insert, 5, "playbook_started", {"path": "story"})
    await drain(database)
    await execute(roles.producer, insert, 5, "EXECUTION_CANCEL", {"reason": "enough"})
    await drain(database)
    assert await value(database, "select status from noetl.execution where execution_id = 5") == "CANCELLED"


async def test_a_producer_may_insert_no_other_event(database: Database, roles: Logins) -> None:
    """No event of a worker and none of the broker. The good events of such a statement are not inserted either."""
    async with session(roles.producer) as own:
        for kind in ("action_completed", "step_completed", "execution_complete", "iteration_started", ""):
            async with refused("42501", "may insert execution_start and execution_cancel"):
                await own.execute("insert into noetl.event (execution_id, event_type) values (1, $1)", kind)
    async with session(roles.producer) as own, refused("42501", "not 'action_failed'"):
        await own.execute(
            "insert into noetl.event (execution_id, event_type)"
            " select n, case n when 500 then 'action_failed' else 'execution_cancel' end from generate_series(1, 999) n"
        )
    assert await value(database, "select count(*) from noetl.event") == 0


async def test_a_producer_cannot_replace_the_functions_of_the_check(database: Database, roles: Logins) -> None:
    """A schema first in its search path has functions of the same names."""
    name = f"way_of_{database.name}"
    await execute(database, f"create schema {name}; grant all on schema {name} to public")
    async with session(roles.producer) as own:
        await own.execute(
            f"create function {name}.lower(text) returns text language sql as 'select ''execution_start''';"
            f" create function {name}.has_table_privilege(regclass, text) returns bool language sql as 'select true';"
            f" set search_path = {name}, pg_catalog"
        )
        async with refused("42501"):
            await own.execute("insert into noetl.event (execution_id, event_type) values (1, 'action_completed')")


async def test_nobody_else_writes_as_the_broker_or_a_worker(database: Database, roles: Logins) -> None:
    """No trigger makes mail of their events, so these names of another writer are refused or ignored."""
    await register(database, ONE_STEP)
    async with session(roles.producer) as own:
        for writer in ("worker", "broker"):
            await own.execute(f"set noetl.writer = '{writer}'")
            async with refused("42501", f"as the {writer}"):
                await own.execute("insert into noetl.event (execution_id, event_type) values (1, 'execution_cancel')")
        await own.execute("select noetl.start_execution('story')")
    await drain(database)
    async with session(roles.worker) as own:
        await own.execute("set noetl.writer = 'broker'")
        queue_id, attempt = await lease(own, "w")
        assert await own.fetchval(COMPLETE, queue_id, "w", attempt)
    await drain(database)
    assert await broken_invariants(database) == {}


async def test_a_worker_cannot_answer_for_another(database: Database, roles: Logins) -> None:
    """The functions check the leaseholder; the tables and the list of leaseholders are closed."""
    await register(database, ONE_STEP)
    await start(database)
    await drain(database)
    async with session(roles.worker) as own:
        queue_id, attempt = await lease(own, "somebody:1:f00")
        assert not await own.fetchval(COMPLETE, queue_id, "else", attempt)
        assert not await own.fetchval(
            "select noetl.fail_job($1, 'else', $2, '{\"message\": \"m\"}')", queue_id, attempt
        )
        assert not await own.fetchval("select noetl.wait_for_child($1, 'else', $2, 1)", queue_id, attempt)
        for call in ("and_lease($1, 'else', $2)", "jobs_and_lease('else', array[$1::bigint], array[$2::int])"):
            assert await own.fetchval(f"select yours from noetl.complete_{call}", queue_id, attempt) is False
        for statement in (
            "update noetl.queue set worker_id = 'else'",
            "select worker_id from noetl.queue",
            "select * from noetl.jobs",
            "insert into noetl.event (execution_id, event_type) values (1, 'action_completed')",
            "select content from noetl.catalog",
            "select noetl.end_jobs('else', array[1], array[1], 'done', 'action_completed', null, null, null)",
        ):
            async with refused("42501"):
                await own.execute(statement)


async def test_the_id_of_a_worker_is_not_visible_to_others(roles: Logins) -> None:
    """`pg_stat_activity` shows session names to every role: the id is not among them."""
    options = WorkerOptions(dsn=roles.worker.dsn, schema=roles.worker.schema)
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(options, stop))
    names: set[str] = set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not any("listener" in name for name in names):
            look = "select application_name from pg_stat_activity where datname = current_database()"
            names = {row[0] for row in await rows(roles.reader, look)}
    stop.set()
    await asyncio.wait_for(worker, PATIENCE_SECONDS)
    assert [name for name in names if options.worker_id in name] == []


async def test_a_step_waits_for_a_child_that_its_worker_started(database: Database, roles: Logins) -> None:
    """A login that is worker and producer needs no right on a table."""
    await register(database, ONE_STEP)
    await register(database, "workflow: [{step: start, next: end}, {step: end, result: {n: 7}}]", path="child")
    (parent,) = await start(database)
    await drain(database)
    async with session(roles.worker) as own:
        queue_id, attempt = await lease(own, "w")
        async with refused("NB400"):
            await own.fetchval("select noetl.wait_for_child($1, 'w', $2, 1, -1)", queue_id, attempt)
        child = await value(roles.producer, "select noetl.start_execution('child')")
        assert await own.fetchval("select noetl.wait_for_child($1, 'w', $2, $3)", queue_id, attempt, child)
        assert await own.fetchval(COMPLETE, queue_id, "w", attempt)
        assert not await own.fetchval("select noetl.wait_for_child($1, 'w', $2, $3)", queue_id, attempt, child)
    await drain(database)
    result = await value(database, "select result::text from noetl.execution where execution_id = $1", parent)
    assert json.loads(result) == [{"n": 7}]
    assert (
        await value(database, "select parent_execution_id from noetl.execution where execution_id = $1", child)
        == parent
    )
    assert await broken_invariants(database) == {}


async def test_whoever_started_an_execution_sees_its_outcome(database: Database, roles: Logins) -> None:
    """So do whoever repeated the start with its key, and operators; for others, there is none."""
    await register(database, "workflow: [{step: start, next: end}, {step: end, result: 7}]")
    outcome = "select status || ' ' || coalesce(result::text, '') from noetl.outcome($1)"
    starter = "select started_by from noetl.execution where execution_id = $1"
    name = await value(roles.producer, "select 'login:' || session_user")
    once = "select noetl.start_execution('story', '{}', idempotency_key => 'a')"
    first = await value(roles.producer, once)
    by_event = await value(roles.producer, "select noetl.next_id()")
    insert = "insert into noetl.event (execution_id, event_type, context) values ($1, 'playbook_started', $2)"
    await execute(roles.producer, insert, by_event, {"path": "story"})
    await drain(database)
    assert [await value(database, starter, each) for each in (first, by_event)] == [name, None]
    assert await value(roles.producer, outcome, first) == "COMPLETED 7"
    assert await value(roles.operator, outcome, by_event) == "COMPLETED 7"
    async with login(database, "other", named("noetl_producer")) as other:
        for unseen in (first, by_event, 5):
            async with session(other) as own, refused("NB404", f"no execution {unseen} that login:other"):
                await own.fetchval(outcome, unseen)
        assert await value(other, once) == first
        assert await value(other, outcome, first) == "COMPLETED 7"
        many = "select noetl.start_executions('story', array['{}', '{}']::jsonb[], array['a', 'b'])"
        second = (await value(other, many))[1]
        assert await value(roles.producer, many) == [first, second]
        assert await value(roles.producer, outcome, second) == "RUNNING "


async def test_whoever_started_a_parent_sees_what_its_child_came_to(database: Database, roles: Logins) -> None:
    """A child was started by nobody."""
    await register(database, "workflow: [{step: start, next: end}, {step: end, result: 7}]")
    await register(
        database, "workflow: [{step: start, next: a}, {step: a, type: playbook, path: story}]", path="parent"
    )
    await execute(roles.producer, "select noetl.start_execution('parent')")
    await drain(database)
    child = await value(database, "select execution_id from noetl.execution where path = 'story'")
    outcome = "select status from noetl.outcome($1)"
    assert await value(roles.producer, outcome, child) == "COMPLETED"
    async with login(database, "other", named("noetl_producer")) as other, session(other) as own, refused("NB404"):
        await own.fetchval(outcome, child)


async def test_only_an_operator_says_for_whom_it_acts(database: Database, roles: Logins) -> None:
    """A console does, for its users; a token sees what it started itself."""
    await register(database, "workflow: [{step: start, next: end}, {step: end, result: 7}]")
    for_ann = "select noetl.start_execution('story', options => '{\"by\": \"token:ann\"}')"
    async with session(roles.producer) as own, refused("42501", "may not act for token:ann"):
        await own.fetchval(for_ann)
    async with session(roles.operator) as own, refused("NB400", "which is no login:NAME or token:NAME"):
        await own.fetchval(for_ann.replace("token:", ""))
    execution = await value(roles.operator, for_ann)
    starter = "select started_by from noetl.execution where execution_id = $1"
    assert await value(database, starter, execution) == "token:ann"
    outcome = "select status from noetl.outcome($1, $2)"
    assert await value(roles.operator, outcome, execution, "token:ann") == "RUNNING"
    async with session(roles.operator) as own, refused("NB404"):
        await own.fetchval(outcome, execution, "token:bob")
    async with session(roles.producer) as own, refused("42501", "may not act for token:ann"):
        await own.fetchval(outcome, execution, "token:ann")


async def test_an_approver_sees_what_waits_and_decides(database: Database, roles: Logins) -> None:
    """Nobody else decides: not a producer, nor a broker, nor a worker. The event says who was logged in."""
    await register(database, "workflow: [{step: start, next: approve}, {step: approve, type: approval}]")
    await start(database)
    await drain(database)
    for other in (roles.producer, roles.reader, roles.broker, roles.worker, roles.no_role):
        async with session(other) as own, refused("42501"):
            await own.fetchval("select noetl.decide_approval(1, '1:approve', true, 'ann')")
    decide = "select noetl.decide_approval(execution_id, node_id, true, 'ann') from noetl.pending_approvals"
    assert await value(roles.approver, decide) is True
    for refused_statement in (
        "select * from noetl.event",
        "select * from noetl.wait",
        "select noetl.start_execution('story')",
        "insert into noetl.event (execution_id, event_type) values (1, 'approval_decided')",
    ):
        async with session(roles.approver) as own, refused("42501"):
            await own.execute(refused_statement)
    assert "login:noetl_approver" in await value(
        database, "select context ->> 'by' from noetl.event where event_type = 'approval_decided'"
    )
    async with session(roles.producer) as own, refused("42501"):
        await own.execute("insert into noetl.event (execution_id, event_type) values (1, 'approval_decided')")
