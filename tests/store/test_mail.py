"""The trigger on the event table: which events become mail, and when it notifies the broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from noetl_broker.broker.model.event_types import ALIASES
from noetl_broker.store.connect.listener import Listener
from tests.brokers import execute, rows, value
from tests.postgres import SCHEMA, Database
from tests.sessions import PATIENCE_SECONDS, Session, listen, session

INSERT = "insert into noetl.event (execution_id, event_type) values ($1, $2) returning event_id"
GATE = "hashtext('noetl.lock'), 1"
NO_MAIL = ("action_started", "step_result", "Action_Started", "STEP_RESULT")


async def mail(own: Session[Any]) -> list[tuple[int, int]]:
    """Return execution and event of each mail, in the order of the inbox."""
    return [tuple(row) for row in await own.fetch("select execution_id, event_id from noetl.inbox order by mail_id")]


async def test_events_that_ask_for_a_decision_become_mail(database: Database) -> None:
    """An unknown type does too: the broker records it. Two thirds of the events of workers need no turn."""
    asking = [*ALIASES, "Execution_Start", "ACTION_FAILED", "step_completed", "iteration_completed", "strange", ""]
    async with session(database) as own:
        execution_id = await own.fetchval("select noetl.next_id()")
        ids = [await own.fetchval(INSERT, execution_id, kind) for kind in (*asking, *NO_MAIL)]
        assert await mail(own) == [(execution_id, event_id) for event_id in ids[: len(asking)]]


async def test_mail_commits_with_its_event(database: Database) -> None:
    """Other sessions see it after the commit. A rollback removes it, also one to a savepoint."""
    async with session(database) as own, session(database) as other:
        transaction = own.transaction()
        await transaction.start()
        kept = await own.fetchval(INSERT, 1, "action_completed")
        inner = own.transaction()
        await inner.start()
        await own.execute(INSERT, 2, "action_completed")
        await inner.rollback()
        assert await mail(own) == [(1, kept)]
        assert await mail(other) == []
        await transaction.rollback()
        assert await mail(other) == []


@pytest.mark.changes_tables  # it copies into the table itself
async def test_each_row_of_a_statement_is_checked(database: Database) -> None:
    """A third of a thousand rows is no mail. COPY fires the trigger too."""
    async with session(database) as own:
        await own.execute(
            """insert into noetl.event (execution_id, event_id, event_type)
            select n, n, case n % 3 when 0 then 'action_started' else 'action_completed' end
            from generate_series(1, 999) n"""
        )
        assert {execution_id for execution_id, _ in await mail(own)} == {n for n in range(1, 1000) if n % 3}
        await own.execute("delete from noetl.inbox")
        await own.copy_records_to_table(
            "event", schema_name=SCHEMA, columns=["execution_id", "event_id", "event_type"],
            records=[(1, 2001, "action_completed"), (1, 2002, "action_started"), (2, 2003, "action_failed")],
        )  # fmt: skip
        assert await mail(own) == [(1, 2001), (2, 2003)]


async def test_events_of_the_broker_are_no_mail(database: Database) -> None:
    """It decides when it writes. The mark lasts for its transaction."""
    async with session(database) as own:
        async with own.transaction():
            await own.execute("select set_config('noetl.writer', 'broker', true)")
            await own.execute(INSERT, 1, "step_started")
        assert await mail(own) == []
        event_id = await own.fetchval(INSERT, 1, "action_completed")
        assert await mail(own) == [(1, event_id)]


FOLLOWS = """
create function public.follow() returns trigger language plpgsql as $$
begin
  insert into noetl.event (execution_id, event_type) values (noetl.next_id(), 'execution_start');
  return null;
end $$;
create trigger follow after insert on noetl.event for each row when (new.event_type = 'action_completed')
execute function public.follow();
"""


ENDS = (
    "complete_job({0}, 'w', {1}, '1')",
    "complete_jobs('w', array[{0}], array[{1}], '{{1}}')",
    "complete_and_lease({0}, 'w', {1}, '1')",
    "complete_jobs_and_lease('w', array[{0}], array[{1}], '{{1}}')",
)


@pytest.mark.parametrize("call", ENDS)
@pytest.mark.changes_tables
async def test_an_event_beside_a_workers_is_mail(database: Database, call: str) -> None:
    """A trigger of the user inserts it when a job completes, or the worker in its transaction; each is mail once."""
    await execute(database, FOLLOWS)
    job = (
        "insert into noetl.queue (execution_id, node_id, node_name, node_type, action) values (1, 'n', 'n', 'x', '{}')"
    )
    await execute(database, job)
    async with session(database) as own:
        [leased] = await own.fetch("select queue_id, attempts from noetl.lease_jobs('w')")
        async with own.transaction():
            await own.execute(f"select noetl.{call}".format(*leased))
            await own.execute(INSERT, await own.fetchval("select noetl.next_id()"), "execution_start")
        started = await own.fetch("select execution_id from noetl.event where event_type = 'execution_start'")
        assert len(started) == 2
        assert sorted(one for one, _ in await mail(own)) == sorted([1, *(row["execution_id"] for row in started)])


CALLS = """
create table public.answer (queue_id bigint, attempts int);
create function public.call() returns trigger language plpgsql as $$
begin
  perform noetl.%s;
  perform noetl.start_execution('story');
  return null;
end $$;
create trigger call after insert on public.answer for each row execute function public.call();
"""


@pytest.mark.parametrize("call", ENDS)
async def test_events_of_functions_that_a_trigger_calls_are_mail_once(database: Database, call: str) -> None:
    """A trigger of the user completes a job and starts an execution."""
    playbook = "insert into noetl.catalog (path, version, content) values ('story', 1, '')"
    await execute(database, playbook)
    await execute(database, CALLS % call.format("new.queue_id", "new.attempts"))
    job = (
        "insert into noetl.queue (execution_id, node_id, node_name, node_type, action) values (1, 'n', 'n', 'x', '{}')"
    )
    await execute(database, job)
    async with session(database) as own:
        await own.execute("insert into public.answer select queue_id, attempts from noetl.lease_jobs('w')")
        events = await own.fetch("select execution_id, event_id from noetl.event where noetl.is_mail(event_type)")
        assert await mail(own) == sorted(tuple(row) for row in events)
        assert len(events) == 2


async def test_an_updated_event_is_no_mail(database: Database) -> None:
    """A NoETL server rewrites events. A statement that inserts one row and rewrites another makes one mail."""
    event = "insert into noetl.event (execution_id, event_id, event_type) values (1, 1, 'action_completed')"
    async with session(database) as own:
        await own.execute(event)
        await own.execute("delete from noetl.inbox")
        await own.execute(f"{event} on conflict (execution_id, event_id) do update set status = 'COMPLETED'")
        await own.execute(f"{event} on conflict do nothing")
        await own.execute("update noetl.event set event_type = 'action_failed'")
        assert await mail(own) == []
        await own.execute(
            f"{event}, (1, 2, 'action_completed')"
            " on conflict (execution_id, event_id) do update set status = excluded.status"
        )
        await own.execute("delete from noetl.event")
        assert await mail(own) == [(1, 2)]


async def test_a_missing_catalog_id_is_filled_from_the_execution(database: Database) -> None:
    """A given one stays. An unknown execution has none."""
    async with session(database) as own:
        await own.execute("insert into noetl.execution (execution_id, catalog_id) values (1, 11)")
        await own.execute(
            "insert into noetl.event (execution_id, event_id, event_type) values (1, 1, 'a'), (2, 2, 'a')"
        )
        await own.execute(
            "insert into noetl.event (execution_id, event_id, catalog_id, event_type) values (1, 3, 33, 'a')"
        )
        filled = await own.fetch("select event_id, catalog_id from noetl.event order by event_id")
    assert [tuple(row) for row in filled] == [(1, 11), (2, None), (3, 33)]


@pytest.mark.changes_tables
async def test_a_writer_needs_no_right_on_the_inbox(database: Database) -> None:
    """The trigger has the rights of its owner, so INSERT on the event table is enough."""
    role = f"writer_{database.name}"
    async with session(database) as own:
        await own.execute(f"create role {role}; grant usage on schema noetl to {role}")
        await own.execute(f"grant insert, select on noetl.event to {role}")
        try:
            await own.execute(f"set role {role}")
            await own.execute(
                "insert into noetl.event (execution_id, event_id, event_type) values (1, 1, 'action_completed')"
            )
            await own.execute("reset role")
            assert await mail(own) == [(1, 1)]
        finally:
            await own.execute(f"drop owned by {role}; drop role {role}")


async def test_a_writer_does_not_notify_an_awake_broker(database: Database) -> None:
    """The gate is free. Only the marker of the test arrives."""
    async with session(database) as own, session(database) as listener:
        next_notification = await listen(listener)
        await own.execute(INSERT, 1, "action_completed")
        await own.execute("select pg_notify('noetl_event', 'mark')")
        assert await next_notification() == "mark"


async def test_a_transaction_notifies_a_sleeping_broker_once(database: Database) -> None:
    """It holds the gate. Events that are no mail do not wake it; three events of a transaction do once."""
    async with session(database) as own, session(database) as sleeper:
        next_notification = await listen(sleeper)
        await sleeper.execute(f"select pg_advisory_lock({GATE})")
        for kind in NO_MAIL:
            await own.execute(INSERT, 1, kind)
        await own.execute("select pg_notify('noetl_event', 'nothing')")
        async with own.transaction():
            for _ in range(3):
                await own.execute(INSERT, 1, "action_completed")
        await own.execute("select pg_notify('noetl_event', 'mark')")
        assert [await next_notification() for _ in range(3)] == ["nothing", "", "mark"]


async def test_the_notification_arrives_after_the_commit(database: Database) -> None:
    """The listener then sees the mail. A rollback sends nothing."""
    async with session(database) as own, session(database) as other, session(database) as sleeper:
        next_notification = await listen(sleeper)
        await sleeper.execute(f"select pg_advisory_lock({GATE})")
        transaction = own.transaction()
        await transaction.start()
        await own.execute(INSERT, 1, "action_completed")
        await other.execute("select pg_notify('noetl_event', 'before')")
        assert await next_notification() == "before"
        await transaction.commit()
        assert await next_notification() == ""
        assert len(await mail(other)) == 1
        transaction = own.transaction()
        await transaction.start()
        await own.execute(INSERT, 1, "action_completed")
        await transaction.rollback()
        await other.execute("select pg_notify('noetl_event', 'after')")
        assert await next_notification() == "after"


async def test_a_broker_does_not_sleep_during_a_commit(database: Database) -> None:
    """A writer that found it awake keeps the gate until its commit is visible."""
    async with session(database) as own:
        listener = Listener(database)
        await listener.connect()
        transaction = own.transaction()
        await transaction.start()
        await own.execute(INSERT, 1, "action_completed")
        assert await listener.take_gate() is False
        await transaction.commit()
        assert await listener.take_gate() is True
        await listener.release_gate()
        assert await value(database, f"select pg_try_advisory_lock({GATE})") is True
        await listener.close()


async def test_two_writers_do_not_wait_for_each_other_at_the_gate(database: Database) -> None:
    """They share the lock."""
    async with session(database) as first, session(database) as second, first.transaction():
        await first.execute(INSERT, 1, "action_completed")
        await second.execute(INSERT, 2, "action_completed")
        assert await rows(database, "select execution_id from noetl.inbox") == [(2,)]


async def test_the_listener_receives_the_notification_of_a_writer(database: Database) -> None:
    """A commit sets it; its own probe does not."""
    listener = Listener(database)
    await listener.connect()
    listener.notified.clear()
    connected_at = listener.heard_at
    assert await listener.take_gate()
    await execute(database, "select pg_notify('noetl_event', 'probe:x')")
    await execute(database, INSERT, 1, "action_completed")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await listener.notified.wait()
    assert listener.heard_at > connected_at
    await listener.close()


async def test_a_parallel_query_reads_json_in_text(database: Database) -> None:
    """A function that catches errors cannot run in a parallel worker."""
    async with session(database) as own:
        forced = "debug_parallel_query" if own.get_server_version().major > 15 else "force_parallel_mode"
        await own.execute(f"set {forced} = on; set parallel_setup_cost = 0; set parallel_tuple_cost = 0")
        await own.execute("set min_parallel_table_scan_size = 0; set max_parallel_workers_per_gather = 2")
        for text, parsed in (
            ('{"a": 1}', {"a": 1}),
            ("null", None),
            ("{broken", None),
            ("", None),
            ('"\\u0000"', None),
        ):
            await own.execute(f"create table texts as select '{text}' as result from generate_series(1, 10)")
            assert await own.fetchval("select noetl.as_json(result) from texts limit 1") == parsed
            assert await own.fetchval("select count(*) from texts where noetl.is_broken(result)") in {0, 10}
            await own.execute("drop table texts")


async def test_an_event_without_a_type_is_mail(database: Database) -> None:
    """A NoETL server's table may hold one: the broker reports it."""
    assert await value(database, "select noetl.is_mail(null)") is True
