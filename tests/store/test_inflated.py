"""What no broker could hold is refused at each door: numbers of a hundred thousand digits, texts of many megabytes."""

from __future__ import annotations

import json

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


async def test_a_payload_is_refused(database: Database) -> None:
    """With its playbook and what to do; nothing is started."""
    await register(database, ONE_STEP)
    async with session(database) as own:
        async with refused("NB400", "payload of story holds numbers of 11[0-9]{4} digits together"):
            await own.fetchval("select noetl.start_execution('story', $1::text::jsonb)", INFLATED)
        assert await own.fetchval("select count(*) from noetl.execution") == 0


async def test_a_payload_or_a_path_past_its_limit_is_refused(database: Database) -> None:
    """By name, with its size and the limit."""
    await register(database, ONE_STEP)
    async with session(database) as own:
        async with refused("NB400", "payload of story takes 17000009 bytes; the limit max_payload_bytes is 16777216"):
            await own.fetchval("select noetl.start_execution('story', jsonb_build_object('x', repeat('x', 17000000)))")
        async with refused("NB400", "the path xxx.* has 50000000 characters; it may have 1024"):
            await own.fetchval("select noetl.start_execution(repeat('x', 50000000))")
        assert await own.fetchval("select count(*) from noetl.execution") == 0


async def test_what_is_too_large_is_refused_of_a_producer(database: Database) -> None:
    """The context as a whole, and the path in it."""
    insert = (
        "insert into noetl.event (execution_id, event_type, context) values (1, 'execution_start', $1::text::jsonb)"
    )
    async with logins(database) as roles, session(roles.producer) as own:
        async with refused(
            "NB400", "the context of execution_start for execution 1 is 17000012 long; it may be 16777216"
        ):
            await own.execute(insert, json.dumps({"path": "x" * 17_000_000}))
        async with refused("NB400", "the path in the context of execution_start for execution 1 has more than 1024"):
            await own.execute(insert, json.dumps({"path": "x" * 1_025}))


async def test_a_result_is_refused(database: Database) -> None:
    """By both functions; the job stays leased, and can be answered for otherwise."""
    async with session(database) as own:
        await put_job(own)
        queue_id = await own.fetchval("select queue_id from noetl.lease_jobs('w')")
        async with refused("NB400", "result of job [0-9]+ holds numbers of"):
            await own.execute("select noetl.complete_job($1, 'w', 1, $2::text::jsonb)", queue_id, INFLATED)
        async with refused("NB400", "result of job [0-9]+ holds numbers of"):
            await own.execute(
                "select noetl.complete_jobs('w', array[$1::bigint], array[1], array[$2::text::jsonb])",
                queue_id,
                INFLATED,
            )
        assert await own.fetchval("select noetl.complete_job($1, 'w', 1, '1')", queue_id) is True


async def test_what_is_large_otherwise_is_not_taken_for_it(database: Database) -> None:
    """Doubles, text that compresses well, control characters, which are written with six, and one long number."""
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


async def test_what_a_producer_inserts_is_refused(database: Database) -> None:
    """With no right but those that it has."""
    await register(database, ONE_STEP)
    [execution_id] = await start(database)
    await drain(database)
    insert = (
        "insert into noetl.event (execution_id, event_type, context) values ($1, 'execution_cancel', $2::text::jsonb)"
    )
    async with logins(database) as roles, session(roles.producer) as own:
        async with refused("NB400", "the context of execution_[a-z]+ for execution [0-9]+ holds numbers of"):
            await own.execute(insert, execution_id, INFLATED)
        await own.execute(insert, execution_id, '{"reason": "enough"}')


async def test_a_producers_text_on_the_database_of_a_noetl_server_is_read(empty_database: Database) -> None:
    """The columns are text there, as long as what was written; what is no JSON at all is accounted for as ever."""
    noetl = await open_noetl(empty_database)
    await noetl.register(ONE_STEP)
    catalog_id = await noetl.connection.fetchval("select catalog_id from noetl.catalog")
    await noetl.connection.close()
    insert = (
        "insert into noetl.event (execution_id, catalog_id, event_type, context) values (5, $1, 'execution_start', $2)"
    )
    async with logins(empty_database) as roles, session(roles.producer) as own:
        async with refused("NB400", "the context of execution_[a-z]+ for execution [0-9]+ holds numbers of"):
            await own.execute(insert, catalog_id, INFLATED)
        await own.execute(insert, catalog_id, "no JSON")
