"""The calls of a producer: start an execution, once per key or from a trigger, and cancel it."""

from __future__ import annotations

import asyncio
from typing import Any

from noetl_broker.broker.model.values import JSON
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database
from tests.sessions import blocked, refused, session

ONE_STEP = """
workload: {city: Paris, n: {a: 1}}
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""


NO_OBJECTS = ("[]", '"text"', "1", "null", "true")


async def add_version(database: Database, version: int, path: str = "story") -> None:
    """Add a version with any content to the catalog."""
    await execute(
        database, "insert into noetl.catalog (path, version, content) values ($1, $2, 'x')", path, version
    )  # fmt: skip


async def test_a_start_writes_one_row_and_one_event(database: Database) -> None:
    """The event has the payload as sent; its mail waits for the broker."""
    await register(database, ONE_STEP, path="story")
    execution_id = await value(database, """select noetl.start_execution('story', '{"city": "Rome"}')""")
    assert await rows(
        database,
        """select execution_id, event_type, node_id, node_name, node_type, status, context, parent_event_id
        from noetl.event""",
    ) == [
        (
            execution_id, "execution_start", str(execution_id), "story", "playbook", "STARTED",
            {"path": "story", "version": 1, "workload": {"city": "Rome"}}, None,
        )
    ]  # fmt: skip
    columns = "execution_id, path, version, status, ended_at"
    assert await rows(database, f"select {columns} from noetl.execution") == [
        (execution_id, "story", 1, "RUNNING", None)
    ]
    assert await value(database, "select count(*) from noetl.start_key") == 0  # it has no key
    assert await rows(database, "select execution_id from noetl.inbox") == [(execution_id,)]


async def test_a_payload_has_several_forms(database: Database) -> None:
    """By position, by name or absent. Templates in it are data."""
    await add_version(database, 1)
    forms: list[tuple[str, JSON]] = [
        ("'story'", {}),
        ("'story', null", {}),
        ("'story', '{}'", {}),
        ("path => 'story', payload => '{\"n\": {\"b\": 2}}'", {"n": {"b": 2}}),
        ("payload => '{\"city\": null}', path => 'story', version => 1", {"city": None}),
        ("'story', '{\"big\": 123456789012345678901234567890}'", {"big": 123456789012345678901234567890}),
        ("'story', '{\"{{ x }}\": \"{{ y }}\"}', null, 'key'", {"{{ x }}": "{{ y }}"}),
    ]
    for arguments, payload in forms:
        await execute(database, f"select noetl.start_execution({arguments})")
        stored = "select context -> 'workload' from noetl.event order by event_id desc limit 1"
        assert await value(database, stored) == payload


async def test_the_payload_is_merged_over_the_defaults(database: Database) -> None:
    """The core merges at every level and stores the workload."""
    await register(database, ONE_STEP)
    await start(database, payload={"n": {"b": 2}, "more": True})
    await drain(database)
    workload = await value(database, "select workload from noetl.execution")
    assert workload == {"city": "Paris", "n": {"a": 1, "b": 2}, "more": True}


async def test_a_bad_call_of_a_producer_is_refused(database: Database) -> None:
    """With a code and what is wrong; nothing is written."""
    await add_version(database, 1)
    calls = [
        *((f"start_execution('story', '{payload}')", "NB400", "must be an object") for payload in NO_OBJECTS),
        ("start_execution(null)", "NB400", "needs the path"),
        ("start_execution('nowhere')", "NB404", "no playbook nowhere is registered"),
        ("start_execution('story', '{}', 7)", "NB404", "no playbook story version 7 is registered"),
        *((f"cancel_execution({unknown})", "NB404", "no execution") for unknown in ("12345", "null", "-1")),
    ]
    async with session(database) as own:
        for call, state, message in calls:
            async with refused(state, message):
                await own.execute(f"select noetl.{call}")
        assert await own.fetchval("select count(*) from noetl.event") == 0
        assert await own.fetchval("select count(*) from noetl.execution") == 0


async def test_an_idempotency_key_over_1024_bytes_is_refused(database: Database) -> None:
    """NB400, with its length. The index holds 1024 bytes beside the longest path."""
    path = "".join(f"{n:05d}" for n in range(51))
    await register(database, ONE_STEP, path=path)
    key = "select string_agg(sha512(n::text::bytea)::text, '') from generate_series(1, 8) n"
    async with session(database) as own:
        text = await own.fetchval(f"select left(({key}), 1024)")
        first = await own.fetchval("select noetl.start_execution($1, idempotency_key => $2)", path, text)
        assert await own.fetchval("select noetl.start_execution($1, idempotency_key => $2)", path, text) == first
        async with refused("NB400", "1025 bytes"):
            await own.fetchval("select noetl.start_execution($1, idempotency_key => $2)", path, text + "x")
        async with refused("NB400", "1025 bytes"):
            await own.fetchval(
                """select noetl.fork_execution($1, '{"results": []}', idempotency_key => $2)""", first, text + "x"
            )


async def test_the_latest_version_is_started_by_default(database: Database) -> None:
    """Versions are numbers: 10 is later than 9."""
    for version in (10, 2, 9):
        await add_version(database, version)
    assert await started_version(database, "'story'") == 10
    assert await started_version(database, "'story', '{}', 9") == 9


async def test_an_execution_keeps_its_version(database: Database) -> None:
    """A version that is registered before the first turn does not count either."""
    await register(database, ONE_STEP)
    await start(database)
    await execute(
        database,
        "insert into noetl.catalog (path, version, content) select path, 2, replace(content, 'step: a', 'step: other')"
        " from noetl.catalog",
    )
    await drain(database)
    await complete_jobs(database)
    await drain(database)
    assert await rows(database, "select version, status from noetl.execution") == [(1, "COMPLETED")]
    assert await value(database, "select node_name from noetl.queue") == "a"


async def test_the_same_idempotency_key_gives_the_same_execution(database: Database) -> None:
    """The version may differ. Keys of another path are other keys."""
    await add_version(database, 1)
    await add_version(database, 2)
    await add_version(database, 1, "other")
    first = await value(database, "select noetl.start_execution('story', '{}', 1, 'k')")
    assert await value(database, "select noetl.start_execution('story', null, 2, 'k')") == first
    assert await value(database, "select noetl.start_execution('story', '{}', null, 'l')") != first
    assert await value(database, "select noetl.start_execution('other', '{}', null, 'k')") != first
    assert await value(database, "select count(*) from noetl.event where execution_id = $1", first) == 1


async def test_an_idempotency_key_with_another_payload_is_refused(database: Database) -> None:
    """NB409, in the database's own form of JSON: the order of keys does not count."""
    await add_version(database, 1)
    call = "select noetl.start_execution('story', $1::text::jsonb, null, 'k')"
    async with session(database) as own:
        first = await own.fetchval(call, '{"a": 1, "b": [2]}')
        assert await own.fetchval(call, '{"b": [2],"a":1}') == first
        for other in ('{"a": 1}', '{"a": 1, "b": ["2"]}', "{}"):
            async with refused("NB409", f"key k of story is used: execution {first} was started with another payload"):
                await own.fetchval(call, other)
        await own.execute("update noetl.start_key set digest = null")  # as of a start by a signal
        assert await own.fetchval(call, "{}") == first


async def test_concurrent_starts_with_one_key_start_one_execution(database: Database) -> None:
    """Later callers wait for the first commit and get its id."""
    await add_version(database, 1)
    call = "select noetl.start_execution('story', '{}', null, 'k')"
    returned = await asyncio.gather(*(value(database, call) for _ in range(8)))
    assert len(set(returned)) == 1
    assert await value(database, "select count(*) from noetl.event") == 1


async def test_a_rolled_back_start_frees_its_key(database: Database) -> None:
    """The second session waits and then starts the execution."""
    await add_version(database, 1)
    call = "select noetl.start_execution('story', '{}', null, 'k')"
    async with session(database) as first, session(database) as second:
        transaction = first.transaction()
        await transaction.start()
        rolled_back = await first.fetchval(call)
        waiting = asyncio.create_task(second.fetchval(call))
        await blocked(first)
        await transaction.rollback()
        returned = await waiting
    assert returned != rolled_back
    assert await rows(database, "select execution_id from noetl.event") == [(returned,)]


async def test_a_trigger_of_the_user_starts_executions(database: Database) -> None:
    """Row and execution commit or roll back together."""
    await register(database, ONE_STEP)
    await execute(
        database,
        """
        create table orders (order_id int primary key, item text not null);
        create function start_order() returns trigger language plpgsql as $$
        begin
          perform noetl.start_execution('story', to_jsonb(new), idempotency_key => 'order ' || new.order_id);
          return new;
        end
        $$;
        create trigger start_order after insert on orders for each row execute function start_order();
        """,
    )
    async with session(database) as own:
        await own.execute("insert into orders values (1, 'pen'), (2, 'ink')")
        transaction = own.transaction()
        await transaction.start()
        await own.execute("insert into orders values (3, 'nothing')")
        await transaction.rollback()
    await drain(database)
    assert await complete_jobs(database) == 2
    await drain(database)
    assert await rows(database, "select workload ->> 'item', status from noetl.execution order by 1") == [
        ("ink", "COMPLETED"),
        ("pen", "COMPLETED"),
    ]


async def test_cancel_writes_an_event_with_the_reason(database: Database) -> None:
    """It returns true, and the broker ends the execution. One that has ended gets false, and no event."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await drain(database)
    assert await value(database, "select noetl.cancel_execution($1, 'too late')", execution_id) is True
    await drain(database)
    assert await value(database, "select status from noetl.execution") == "CANCELLED"
    assert await value(database, "select status from noetl.queue") == "cancelled"
    assert await value(database, "select noetl.cancel_execution($1)", execution_id) is False
    assert await rows(
        database,
        "select node_name, context ->> 'reason', context ->> 'by' = 'login:' || session_user from noetl.event"
        " where event_type = 'execution_cancel'",
    ) == [("story", "too late", True)]
    [before_its_first_turn] = await start(database)
    assert await value(database, "select noetl.cancel_execution($1)", before_its_first_turn) is True
    await drain(database)
    assert await rows(database, "select distinct status from noetl.execution") == [("CANCELLED",)]
    assert await rows(database, "select distinct status from noetl.queue") == [("cancelled",)]


async def started_version(database: Database, arguments: str) -> Any:
    """Start an execution and return its version."""
    statement = f"""
        with started as materialized (select noetl.start_execution({arguments}) as execution_id)
        select execution_id from started
    """
    execution_id = await value(database, statement)
    return await value(database, "select version from noetl.execution where execution_id = $1", execution_id)


async def test_a_cancel_has_the_name_of_its_playbook(database: Database) -> None:
    """Another playbook is registered too."""
    await register(database, ONE_STEP)
    await register(database, ONE_STEP, path="other")
    [execution_id] = await start(database)
    await execute(database, "update noetl.catalog set name = path || '!'")
    assert await value(database, "select noetl.cancel_execution($1)", execution_id) is True
    named = "select node_name from noetl.event where event_type = 'execution_cancel'"
    assert await rows(database, named) == [("story!",)]
