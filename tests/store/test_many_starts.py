"""Many starts in one call: `noetl.start_executions`."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.brokers import execute, register, rows, value
from tests.postgres import Database
from tests.sessions import Session, blocked, refused, session

ONE_STEP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""
CALL = "select noetl.start_executions('story', $1::text[]::jsonb[], $2)"


async def start_many(own: Session[Any], payloads: list[str | None], keys: list[str | None] | None = None) -> list[int]:
    """Start executions of the playbook `story`."""
    return list(await own.fetchval(CALL, payloads, keys))


async def test_ids_come_in_the_order_of_the_payloads(database: Database) -> None:
    """Each has its payload as sent, its event and its mail; null is an empty payload."""
    await register(database, ONE_STEP)
    async with session(database) as own:
        ids = await start_many(own, ['{"n": 1}', None, '{"n": 3}'])
        assert await start_many(own, []) == []
    assert ids == sorted(set(ids))
    assert await rows(
        database, "select execution_id, context from noetl.event order by event_id"
    ) == [
        (execution_id, {"path": "story", "version": 1, "workload": payload})
        for execution_id, payload in zip(ids, [{"n": 1}, {}, {"n": 3}], strict=True)
    ]  # fmt: skip
    assert await value(database, "select array_agg(execution_id order by mail_id) from noetl.inbox") == ids
    assert await rows(database, "select execution_id, version, status from noetl.execution order by 1") == [
        (execution_id, 1, "RUNNING") for execution_id in ids
    ]


async def test_a_start_of_many_looks_like_single_starts(database: Database) -> None:
    """The rows are the same but for ids and times."""
    await register(database, ONE_STEP)
    async with session(database) as own:
        one = await own.fetchval("""select noetl.start_execution('story', '{"n": 1}', null, 'one')""")
        [other] = await start_many(own, ['{"n": 1}'], ["other"])
    plain = "(to_jsonb(r)::text::jsonb - array['execution_id', 'event_id', 'mail_id', 'created_at', 'started_at'])"
    for table in ("execution", "event", "inbox"):
        kept = f"replace(replace(({plain} - 'node_id' - 'idempotency_key')::text, $1, ''), $2, '')"
        query = f"select {kept} from noetl.{table} r order by execution_id"
        first, second = await rows(database, query, str(one), str(other))
        assert first == second


BAD_STARTS: list[tuple[list[str | None] | None, list[str | None] | None, str]] = [
    (["{}", "[1]"], None, "NB400: payload 2 of 2: the payload of story is a JSON array; it must be an object"),
    (["{}", "{}"], [None, "k" * 1025], "NB400: payload 2 of 2: the idempotency key has 1025 bytes; the limit is"),
    (["{}"], ["a", "b"], "NB400: 1 payloads and 2 idempotency_keys must be equally many"),
    (["{}"] * 10_001, None, "NB400: start_executions of story: 10001 payloads are too many; the limit is 10000"),
    (None, None, "NB400: start_executions of story needs payloads"),
    (["{}", '{"n": 1}'], ["k", "k"], "NB409: the idempotency key k of story is used"),
    (["{}", '{"n": 1}'], ["a", "old"], "NB409: the idempotency key old of story is used: execution"),
    (["{}", "{}"], ["a", "forked"], "NB409: the idempotency key forked of story is used"),
]


async def test_a_bad_start_is_named_and_nothing_starts(database: Database) -> None:
    """The message says the number of the payload, or the key; the other payloads do not start either."""
    await register(database, ONE_STEP)
    first = await value(database, "select noetl.start_execution('story', '{}', null, 'old')")
    await value(database, """select noetl.fork_execution($1, '{"results": []}', idempotency_key => 'forked')""", first)
    before = await value(database, "select count(*) from noetl.event")
    async with session(database) as own:
        for payloads, keys, complaint in BAD_STARTS:
            state, message = complaint.split(": ", 1)
            async with refused(state, message):
                await own.execute(CALL, payloads, keys)
    assert await value(database, "select count(*) from noetl.event") == before


async def test_many_starts_of_an_unknown_playbook_are_refused(database: Database) -> None:
    """As a single one is, by path and by version."""
    await register(database, ONE_STEP)
    async with session(database) as own:
        for arguments, meant in (
            ("'nowhere', array[]", "nowhere"),
            ("'story', array['{}'], null, 7", "story version 7"),
        ):
            call = f"select noetl.start_executions({arguments.replace(']', ']::jsonb[]', 1)})"
            async with refused("NB404", f"no playbook {meant} is registered"):
                await own.execute(call)


async def test_keys_start_once_within_a_call_and_across_calls(database: Database) -> None:
    """A start without a key is always new."""
    await register(database, ONE_STEP)
    async with session(database) as own:
        old = await own.fetchval("select noetl.start_execution('story', '{}', null, 'old')")
        first, *others = await start_many(own, ["{}", None, "{}", "{}", "{}"], ["k", "old", None, "k", None])
        assert others[0] == old
        assert others[2] == first
        assert len({old, first, others[1], others[3]}) == 4
        assert (await start_many(own, ["{}", "{}"], ["old", "k"])) == [old, first]
    assert await value(database, "select count(*) from noetl.event") == 4


async def test_calls_with_the_same_keys_in_another_order_wait_for_each_other(database: Database) -> None:
    """They insert in the order of the keys, so there is no deadlock."""
    await register(database, ONE_STEP)
    async with session(database) as holder, session(database) as one, session(database) as two:
        transaction = holder.transaction()
        await transaction.start()
        await start_many(holder, ["{}"], ["b"])
        first = asyncio.create_task(start_many(one, ["{}", "{}"], ["a", "b"]))
        await blocked(holder)
        second = asyncio.create_task(start_many(two, ["{}", "{}"], ["b", "a"]))
        await blocked(holder, sessions=2)
        await transaction.rollback()
        assert await first == [*reversed(await second)]


async def test_a_trigger_of_a_statement_starts_executions(database: Database) -> None:
    """Rows and executions commit together."""
    await register(database, ONE_STEP)
    await execute(
        database,
        """
        create table orders (order_id int primary key);
        create function start_orders() returns trigger language plpgsql as $$
        begin
          perform noetl.start_executions('story', array_agg(to_jsonb(n)), array_agg('order ' || n.order_id))
          from added n;
          return null;
        end
        $$;
        create trigger start_orders after insert on orders referencing new table as added
        for each statement execute function start_orders();
        insert into orders values (1), (2);
        """,
    )
    found = "select idempotency_key from noetl.execution order by 1"
    assert await rows(database, found) == [("order 1",), ("order 2",)]
