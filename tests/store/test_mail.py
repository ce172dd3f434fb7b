"""The trigger on the event table: what becomes mail, in whose transaction, and when the bell rings."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from noetl_broker.broker.model import ALIASES
from noetl_broker.store.bell import Bell
from tests.brokers import execute, rows, value
from tests.postgres import Database
from tests.sessions import Session, listen, session

INSERT = "insert into noetl.event (execution_id, event_type) values ($1, $2) returning event_id"
GATE = "1852794228, 1"


async def mail(own: Session[Any]) -> list[tuple[int, int]]:
    """Execution and event of each mail, in the order of the inbox."""
    return [tuple(row) for row in await own.fetch("select execution_id, event_id from noetl.inbox order by mail_id")]


@pytest.mark.parametrize(
    "kind", [*ALIASES, "Execution_Start", "ACTION_FAILED", "step_completed", "iteration_completed", "strange", ""]
)
async def test_an_event_becomes_mail(database: Database, kind: str) -> None:
    """Also one whose type nobody knows: the broker accounts for it."""
    async with session(database) as own:
        event_id = await own.fetchval(INSERT, 1, kind)
        assert await mail(own) == [(1, event_id)]


@pytest.mark.parametrize("kind", ["action_started", "step_result", "Action_Started", "STEP_RESULT"])
async def test_an_event_that_never_decides_is_no_mail(database: Database, kind: str) -> None:
    """Two thirds of what workers write asks for nothing."""
    async with session(database) as own:
        await own.execute(INSERT, 1, kind)
        assert await mail(own) == []


async def test_mail_is_of_the_writers_transaction(database: Database) -> None:
    """Nobody else sees it before the commit, and it is gone with a rollback."""
    async with session(database) as own, session(database) as other:
        transaction = own.transaction()
        await transaction.start()
        event_id = await own.fetchval(INSERT, 1, "action_completed")
        assert await mail(own) == [(1, event_id)]
        assert await mail(other) == []
        await transaction.rollback()
        assert await mail(other) == []


async def test_a_savepoint_takes_its_mail_with_it(database: Database) -> None:
    """What was written before it stays."""
    async with session(database) as own, own.transaction():
        kept = await own.fetchval(INSERT, 1, "action_completed")
        inner = own.transaction()
        await inner.start()
        await own.execute(INSERT, 2, "action_completed")
        await inner.rollback()
        assert await mail(own) == [(1, kept)]


async def test_rows_of_one_statement_are_each_looked_at(database: Database) -> None:
    """A thousand rows, a third of them no mail."""
    async with session(database) as own:
        await own.execute(
            """insert into noetl.event (execution_id, event_id, event_type)
            select n, n, case n % 3 when 0 then 'action_started' else 'action_completed' end
            from generate_series(1, 999) n"""
        )
        assert {execution_id for execution_id, _ in await mail(own)} == {n for n in range(1, 1000) if n % 3}


async def test_copied_rows_are_mail(database: Database) -> None:
    """COPY is an INSERT to the trigger."""
    async with session(database) as own:
        await own.copy_records_to_table(
            "event", schema_name="noetl", columns=["execution_id", "event_id", "event_type"],
            records=[(1, 1, "action_completed"), (1, 2, "action_started"), (2, 3, "action_failed")],
        )  # fmt: skip
        assert await mail(own) == [(1, 1), (2, 3)]


async def test_what_the_broker_writes_is_no_mail(database: Database) -> None:
    """It decides as it writes; the mark is of its transaction alone."""
    async with session(database) as own:
        async with own.transaction():
            await own.execute("select set_config('noetl.writer', 'broker', true)")
            await own.execute(INSERT, 1, "step_started")
        assert await mail(own) == []
        event_id = await own.fetchval(INSERT, 1, "action_completed")
        assert await mail(own) == [(1, event_id)]


@pytest.mark.parametrize(
    "rewrite",
    [
        """insert into noetl.event (execution_id, event_id, event_type) values (1, 1, 'action_completed')
        on conflict (execution_id, event_id) do update set status = 'COMPLETED'""",
        """insert into noetl.event (execution_id, event_id, event_type) values (1, 1, 'action_completed')
        on conflict do nothing""",
        "update noetl.event set event_type = 'action_failed'",
        "delete from noetl.event",
    ],
)
async def test_only_a_new_row_is_mail(database: Database, rewrite: str) -> None:
    """A NoETL server rewrites events; a rewrite asks for no second decision."""
    async with session(database) as own:
        await own.execute(
            "insert into noetl.event (execution_id, event_id, event_type) values (1, 1, 'action_completed')"
        )
        await own.execute("delete from noetl.inbox")
        await own.execute(rewrite)
        assert await mail(own) == []


async def test_of_an_upsert_the_new_rows_alone_are_mail(database: Database) -> None:
    """One statement that inserts one and rewrites another."""
    async with session(database) as own:
        await own.execute(
            "insert into noetl.event (execution_id, event_id, event_type) values (1, 1, 'action_completed')"
        )
        await own.execute("delete from noetl.inbox")
        await own.execute(
            """insert into noetl.event (execution_id, event_id, event_type)
            values (1, 1, 'action_completed'), (1, 2, 'action_completed')
            on conflict (execution_id, event_id) do update set status = excluded.status"""
        )
        assert await mail(own) == [(1, 2)]


async def test_a_missing_catalog_id_is_filled_from_the_execution(database: Database) -> None:
    """A given one stays, and an unknown execution has none."""
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


async def test_a_writer_needs_no_right_on_the_inbox(database: Database) -> None:
    """The trigger runs with its owner's rights: INSERT on the event table is enough."""
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


async def test_nobody_rings_while_nobody_sleeps(database: Database) -> None:
    """The gate is free: a notification would only slow the writers down. The mark is the first that is heard."""
    async with session(database) as own, session(database) as listener:
        heard = await listen(listener)
        await own.execute(INSERT, 1, "action_completed")
        await own.execute("select pg_notify('noetl_event', 'mark')")
        assert await heard() == "mark"


async def test_a_writer_rings_for_a_sleeping_broker(database: Database) -> None:
    """Who holds the gate wants to be woken."""
    async with session(database) as own, session(database) as sleeper:
        heard = await listen(sleeper)
        await sleeper.execute(f"select pg_advisory_lock({GATE})")
        await own.execute(INSERT, 1, "action_completed")
        assert await heard() == ""


@pytest.mark.parametrize("kind", ["action_started", "step_result"])
async def test_what_is_no_mail_rings_nothing(database: Database, kind: str) -> None:
    """Also while the broker sleeps."""
    async with session(database) as own, session(database) as sleeper:
        heard = await listen(sleeper)
        await sleeper.execute(f"select pg_advisory_lock({GATE})")
        await own.execute(INSERT, 1, kind)
        await own.execute("select pg_notify('noetl_event', 'mark')")
        assert await heard() == "mark"


async def test_many_rows_ring_once(database: Database) -> None:
    """A transaction's notifications are one."""
    async with session(database) as own, session(database) as sleeper:
        heard = await listen(sleeper)
        await sleeper.execute(f"select pg_advisory_lock({GATE})")
        async with own.transaction():
            for _ in range(3):
                await own.execute(INSERT, 1, "action_completed")
        await own.execute("select pg_notify('noetl_event', 'mark')")
        assert [await heard(), await heard()] == ["", "mark"]


async def test_the_bell_rings_after_the_commit_only(database: Database) -> None:
    """Who hears it sees the mail; what is rolled back is never heard."""
    async with session(database) as own, session(database) as other, session(database) as sleeper:
        heard = await listen(sleeper)
        await sleeper.execute(f"select pg_advisory_lock({GATE})")
        transaction = own.transaction()
        await transaction.start()
        await own.execute(INSERT, 1, "action_completed")
        await other.execute("select pg_notify('noetl_event', 'before')")
        assert await heard() == "before"
        await transaction.commit()
        assert await heard() == ""
        assert len(await mail(other)) == 1
        transaction = own.transaction()
        await transaction.start()
        await own.execute(INSERT, 1, "action_completed")
        await transaction.rollback()
        await other.execute("select pg_notify('noetl_event', 'after')")
        assert await heard() == "after"


async def test_a_broker_cannot_fall_asleep_over_a_commit_under_way(database: Database) -> None:
    """A writer that found it awake keeps the gate until its commit is visible."""
    async with session(database) as own:
        bell = Bell(database.dsn)
        await bell.connect()
        transaction = own.transaction()
        await transaction.start()
        await own.execute(INSERT, 1, "action_completed")
        assert await bell.take_gate() is False
        await transaction.commit()
        assert await bell.take_gate() is True
        await bell.release_gate()
        assert await value(database, f"select pg_try_advisory_lock({GATE})") is True
        await bell.close()


async def test_two_writers_do_not_wait_for_each_other_at_the_gate(database: Database) -> None:
    """They share it."""
    async with session(database) as first, session(database) as second, first.transaction():
        await first.execute(INSERT, 1, "action_completed")
        await second.execute("set statement_timeout = '5s'")
        await second.execute(INSERT, 2, "action_completed")
        assert await rows(database, "select execution_id from noetl.inbox") == [(2,)]


async def test_the_bell_hears_the_writer(database: Database) -> None:
    """The program's own listener: rung by a commit, not by its own probe."""
    bell = Bell(database.dsn)
    await bell.connect()
    bell.rung.clear()
    connected_at = bell.heard_at
    assert await bell.take_gate()
    await execute(database, "select pg_notify('noetl_event', 'probe:x')")
    await execute(database, INSERT, 1, "action_completed")
    async with asyncio.timeout(10):
        await bell.rung.wait()
    assert bell.heard_at > connected_at
    await bell.close()


@pytest.mark.parametrize(
    "text, parsed", [('{"a": 1}', {"a": 1}), ("null", None), ("{broken", None), ("", None), ('"\\u0000"', None)]
)
async def test_json_in_text_is_read_also_by_a_parallel_query(database: Database, text: str, parsed: object) -> None:
    """A dashboard may ask over all events; a function that catches errors must not run in a parallel worker."""
    async with session(database) as own:
        await own.execute(
            "create table texts as select $1::text as result from generate_series(1, 10)".replace(
                "$1::text", f"'{text}'"
            )
        )
        await own.execute("set debug_parallel_query = on; set parallel_setup_cost = 0; set parallel_tuple_cost = 0")
        await own.execute("set min_parallel_table_scan_size = 0; set max_parallel_workers_per_gather = 2")
        assert await own.fetchval("select noetl.as_json(result) from texts limit 1") == parsed
        assert await own.fetchval("select count(*) from texts where noetl.is_broken(result)") in {0, 10}
