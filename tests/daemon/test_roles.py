"""Broker, worker, producer and reader log in as what they are, and each can do its part and no other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from noetl_broker.playbook import Rules, compile_playbook
from noetl_broker.resources import playbooks_folder
from noetl_broker.store import catalog
from noetl_broker.store.session import session as command_session
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
    value,
)
from tests.postgres import Database
from tests.roles import Logins, logins
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


async def test_a_whole_example_runs_with_each_in_its_role(database: Database, roles: Logins) -> None:
    """The producer starts it, the broker decides, the worker works; the reader sees it done."""
    text = (playbooks_folder() / "diamond.yaml").read_text(encoding="utf-8")
    async with command_session(database.dsn, name="register") as connection:
        await catalog.register(connection, [(compile_playbook(text, rules=Rules()), text)])
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(WorkerOptions(dsn=roles.worker.dsn, concurrency=2), stop))
    try:
        async with running(roles.broker, reap_seconds=0.1):
            await rows(roles.producer, "select noetl.start_execution('examples/diamond')")
            await until_ended(database)
    finally:
        stop.set()
        await asyncio.wait_for(worker, PATIENCE_SECONDS)
    assert await rows(roles.reader, "select path, status from noetl.executions") == [("examples/diamond", "COMPLETED")]
    assert await broken_invariants(roles.broker) == {}


async def test_a_reader_sees_nothing_that_anybody_put_in(database: Database, roles: Logins) -> None:
    """Each view has rows, and in none of them stands the secret of the payload, the playbook, a result or an error."""
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
        "insert into noetl.iteration (execution_id, node_id, place, item) values ($1, 'a', 0, $2)", execution, SECRET,
    )  # fmt: skip
    views = [
        row[0]
        for row in await rows(
            database,
            "select table_name::text from information_schema.views where table_schema = 'noetl' order by table_name",
        )
    ]
    seen = {view: await rows(roles.reader, f"select * from noetl.{view}") for view in views}
    assert [view for view, found in seen.items() if not found or SECRET in str(found)] == []


@pytest.mark.parametrize("kind", ["execution_cancel", "EXECUTION_CANCEL"])
async def test_a_producer_may_insert_its_own_events(database: Database, roles: Logins, kind: str) -> None:
    """A start and a cancel, by their columns; their ids and times are the database's."""
    await register(database, ONE_STEP)
    insert = "insert into noetl.event (execution_id, event_type, context) values ($1, $2, $3)"
    await execute(roles.producer, insert, 5, "playbook_started", {"path": "story"})
    await drain(database)
    await execute(roles.producer, insert, 5, kind, {"reason": "enough"})
    await drain(database)
    assert await value(database, "select status from noetl.execution where execution_id = 5") == "CANCELLED"


@pytest.mark.parametrize("kind", ["action_completed", "step_completed", "execution_complete", "iteration_started", ""])
async def test_a_producer_may_insert_no_other_event(roles: Logins, kind: str) -> None:
    """Not in a worker's name, and not in the broker's."""
    async with session(roles.producer) as own, refused("42501", "may insert execution_start and execution_cancel"):
        await own.execute("insert into noetl.event (execution_id, event_type) values (1, $1)", kind)


async def test_one_wrong_event_among_many_is_refused(database: Database, roles: Logins) -> None:
    """With all of its statement."""
    async with session(roles.producer) as own, refused("42501", "not 'action_failed'"):
        await own.execute(
            "insert into noetl.event (execution_id, event_type)"
            " select n, case n when 500 then 'action_failed' else 'execution_cancel' end from generate_series(1, 999) n"
        )
    assert await value(database, "select count(*) from noetl.event") == 0


async def test_a_producer_cannot_stand_in_the_way_of_the_check(database: Database, roles: Logins) -> None:
    """Functions of the same names in a schema that it looks into first are not what the check calls."""
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


async def test_nobody_writes_in_the_name_of_the_broker(database: Database, roles: Logins) -> None:
    """The broker's own events are no mail: whoever says that it is the broker is refused, or not believed."""
    await register(database, ONE_STEP)
    async with session(roles.producer) as own:
        await own.execute("set noetl.writer = 'broker'")
        async with refused("42501", "in the name of the broker"):
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
    """By function it must be the leaseholder; the tables are closed to it, and so is who holds what."""
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


async def test_a_worker_says_nowhere_else_who_it_is(roles: Logins) -> None:
    """`pg_stat_activity` shows everybody the name of a session: the worker's id is not there."""
    options = WorkerOptions(dsn=roles.worker.dsn)
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
