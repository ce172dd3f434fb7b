"""Values that are too large for the broker are refused: numbers of 100,000 digits, texts of many megabytes."""

from __future__ import annotations

import json

from noetl_broker.broker.model.limits import MAX_NODE_CHARS
from tests.brokers import drain, register, start
from tests.noetl import open_noetl
from tests.postgres import Database
from tests.roles import logins
from tests.sessions import put_job, refused, session

ONE_STEP = """
workflow:
- {step: start, next: a}
- {step: a, type: python, code: x, next: end}
- {step: end}
"""
INFLATED = '{"x": [1e100000, 1e-16000]}'


async def test_a_start_refuses_an_inflated_payload_and_one_over_its_limit(database: Database) -> None:
    """The error names the playbook, the size and the limit; nothing starts."""
    await register(database, ONE_STEP)
    async with session(database) as own:
        async with refused("NB400", "payload of story has numbers of 11[0-9]{4} digits in total"):
            await own.fetchval("select noetl.start_execution('story', $1::text::jsonb)", INFLATED)
        async with refused("NB400", "payload of story takes 17000009 bytes; the limit max_payload_bytes is 16777216"):
            await own.fetchval("select noetl.start_execution('story', jsonb_build_object('x', repeat('x', 17000000)))")
        async with refused("NB400", "the path xxx.* has 50000000 characters; the limit is 1024"):
            await own.fetchval("select noetl.start_execution(repeat('x', 50000000))")
        assert await own.fetchval("select count(*) from noetl.execution") == 0


async def test_an_inserted_event_over_a_limit_is_refused(database: Database) -> None:
    """A start has limits of its whole context and its path, each context one of digits. A producer inserts them."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await drain(database)
    begin = "insert into noetl.event (execution_id, event_type, context) values (1, 'execution_start', $1::text::jsonb)"
    cancel = (
        "insert into noetl.event (execution_id, event_type, context) values ($1, 'execution_cancel', $2::text::jsonb)"
    )
    async with logins(database) as roles, session(roles.producer) as own:
        async with refused(
            "NB400", "the context of execution_start for execution 1 has size 17000012; the limit is 16777216"
        ):
            await own.execute(begin, json.dumps({"path": "x" * 17_000_000}))
        async with refused("NB400", "the path in the context of execution_start for execution 1 has more than 1024"):
            await own.execute(begin, json.dumps({"path": "x" * 1_025}))
        async with refused("NB400", "the context of execution_[a-z]+ for execution [0-9]+ has numbers"):
            await own.execute(cancel, execution_id, INFLATED)
        await own.execute(cancel, execution_id, '{"reason": "enough"}')


async def test_an_inflated_result_is_refused(database: Database) -> None:
    """Each function refuses it. The job stays leased."""
    one, many = "($1::bigint, 'w', 1, $2::text::jsonb)", "('w', array[$1::bigint], array[1], array[$2::text::jsonb])"
    async with session(database) as own:
        await put_job(own)
        queue_id = await own.fetchval("select queue_id from noetl.lease_jobs('w')")
        for call in (f"job{one}", f"jobs{many}", f"and_lease{one}", f"jobs_and_lease{many}"):
            async with refused("NB400", "result of job [0-9]+ has numbers of"):
                await own.execute(f"select noetl.complete_{call}", queue_id, INFLATED)
        assert await own.fetchval("select noetl.complete_job($1, 'w', 1, '1')", queue_id) is True


async def test_large_ordinary_values_are_not_refused(database: Database) -> None:
    """Doubles, text that compresses well, control characters, and one long number."""
    doubles = ["[" + ", ".join([number] * 1_000) + "]" for number in ("1e-300", "-4.9e-324", "1.7976931348623157e308")]
    values = [*doubles, '"' + "a" * 1_000_000 + '"', '"' + "\\u0001" * 20_000 + '"', "[" + "7" * 100_000 + "]"]
    async with session(database) as own:
        for text in values:
            assert await own.fetchval("select noetl.is_inflated($1::text::jsonb)", text) is False
        await own.execute("create temp table kept (value jsonb)")
        await own.executemany("insert into kept values ($1::text::jsonb)", [(text,) for text in values])
        assert await own.fetchval("select bool_or(noetl.is_inflated(value)) from kept") is False
        assert await own.fetchval("select noetl.is_inflated(null)") is False
        assert await own.fetchval("select noetl.is_inflated($1::text::jsonb)", INFLATED) is True


async def test_text_on_tables_of_a_noetl_server_is_checked(noetl_database: Database) -> None:
    """Inflated text is refused. Text that is not JSON is recorded."""
    noetl = await open_noetl(noetl_database)
    await noetl.register(ONE_STEP)
    catalog_id = await noetl.connection.fetchval("select catalog_id from noetl.catalog")
    await noetl.connection.close()
    insert = (
        "insert into noetl.event (execution_id, catalog_id, event_type, context) values (5, $1, 'execution_start', $2)"
    )
    async with logins(noetl_database) as roles, session(roles.producer) as own:
        async with refused("NB400", "the context of execution_[a-z]+ for execution [0-9]+ has numbers"):
            await own.execute(insert, catalog_id, INFLATED)
        await own.execute(insert, catalog_id, "no JSON")


async def test_a_name_at_its_limit_is_accepted(database: Database) -> None:
    """One more character is refused."""
    insert = "insert into noetl.event (execution_id, event_type, node_name) values (1, 'execution_cancel', $1)"
    async with logins(database) as roles, session(roles.producer) as own:
        await own.execute(insert, "n" * MAX_NODE_CHARS)
        async with refused("NB400", f"the node_name of execution_cancel for execution 1 has size {MAX_NODE_CHARS + 1}"):
            await own.execute(insert, "n" * (MAX_NODE_CHARS + 1))
