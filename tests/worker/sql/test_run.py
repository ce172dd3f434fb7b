"""The SQL of a step on a real Postgres: values, rows, transactions, faults."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from noetl_broker.worker.sql.run import SqlStatement, SqlTarget, StatementFault, StatementResult, run_statements
from tests.chaos.silent_proxy import SilentProxy
from tests.postgres import Database

MANY_BYTES = 1_000_000
PATIENCE_SECONDS = 30.0  # less than the driver waits for an answer


async def run(
    database: Database, *statements: str, values: list[Any] | None = None, limit: int = MANY_BYTES
) -> list[StatementResult]:
    """Run statements on a database, each with these values."""
    script = [SqlStatement(sql=sql, values=values or []) for sql in statements]
    return await run_statements(SqlTarget(dsn=database.dsn), script, largest_bytes=limit)


VALUES = [
    ("1::bigint", 1),
    ("2.50::numeric", 2.5),
    ("9007199254740993::numeric", 9007199254740993),
    ("'nan'::float8", "nan"),
    ("true", True),
    ("null::text", None),
    ("'2026-01-02 03:04:05+00'::timestamptz", "2026-01-02T03:04:05+00:00"),
    ("'2026-01-02'::date", "2026-01-02"),
    ("'{\"a\": [1]}'::jsonb", {"a": [1]}),
    ("array['a', null]", ["a", None]),
    ("array['{\"a\":2}'::jsonb]", [{"a": 2}]),
    ("'\\x00ff'::bytea", "\\x00ff"),
    ("'6f9619ff-8b86-d011-b42d-00c04fc964ff'::uuid", "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
    ("int4range(1, 3)", "[1,3)"),
    ("row(1, 'x')", [1, "x"]),
    ("'10.0.0.1'::inet", "10.0.0.1"),
]
GIVEN = [
    ("int", "7", 7),
    ("int", 2.0, 2),
    ("bigint", -4503599627370496.0, -4503599627370496),
    ("smallint[]", [2.0, None], [2, None]),
    ("text", 2.0, "2.0"),
    ("text", 7, "7"),
    ("text", {"a": 1}, '{"a": 1}'),
    ("jsonb", {"a": 1}, {"a": 1}),
    ("jsonb", '{"a": 1}', {"a": 1}),
    ("jsonb", "plain", "plain"),
    ("boolean", True, True),
    ("boolean", "no", False),
    ("numeric", 1.5, 1.5),
    ("timestamptz", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05+00:00"),
    ("int[]", [1, None, "3"], [1, None, 3]),
    ("text[]", ['a"b', "c,d", "\\"], ['a"b', "c,d", "\\"]),
    ("date", None, None),
]


async def test_values_are_returned_as_json(empty_database: Database) -> None:
    """As a JSON type if there is one, otherwise as text."""
    found = await run(empty_database, *(f"select {expression} as it" for expression, _ in VALUES))
    assert [one.rows for one in found] == [[{"it": value}] for _, value in VALUES]


async def test_a_json_value_fits_any_column_type(empty_database: Database) -> None:
    """The server reads it like a literal of the type."""
    script = [SqlStatement(sql=f"select $1::{kind} as it", values=[given]) for kind, given, _ in GIVEN]
    found = await run_statements(SqlTarget(dsn=empty_database.dsn), script, largest_bytes=MANY_BYTES)
    assert [one.rows for one in found] == [[{"it": value}] for _, _, value in GIVEN]


async def test_a_fraction_is_refused_for_an_integer(empty_database: Database) -> None:
    """It is not rounded."""
    with pytest.raises(StatementFault, match="22P02"):
        await run(empty_database, "select $1::int", values=[2.5])


async def test_statements_run_in_one_transaction(empty_database: Database) -> None:
    """A failure of the second undoes the first, and names the second."""
    with pytest.raises(StatementFault, match=r"statement 2 of 2: .*does not exist \(42P01\)") as raised:
        await run(empty_database, "create table t (a int)", "select * from nothing")
    assert (raised.value.sqlstate, raised.value.retryable) == ("42P01", True)
    [rows] = await run(empty_database, "select to_regclass('t') is null as gone")
    assert rows.rows == [{"gone": True}]


async def test_a_fault_of_the_commit_is_reported(empty_database: Database) -> None:
    """Of a deferred constraint."""
    table = "create table t (a int unique deferrable initially deferred)"
    with pytest.raises(StatementFault, match=r"^transaction: duplicate key .*\(23505\)"):
        await run(empty_database, table, "insert into t values (1), (1)")


async def test_a_statement_that_refuses_a_transaction_runs_alone(empty_database: Database) -> None:
    """Then each statement is its own transaction."""
    results = await run(empty_database, "create table t (a int)", "vacuum t", "insert into t values (1), (2)")
    assert [result.count for result in results] == [0, 0, 2]


async def test_concurrent_statements_run_alone(empty_database: Database) -> None:
    """Also beside a statement that may run in a transaction."""
    await run(
        empty_database,
        "create table t (a int primary key) partition by range (a)",
        "create table p partition of t for values from (0) to (9)",
        "create materialized view v as select 1 as a",
        "create unique index on v (a)",
    )
    for sql in (
        "reindex table concurrently p",
        "reindex (concurrently) table p",
        "reindex schema public",
        "refresh materialized view concurrently v",
        "alter table t detach partition p concurrently",
    ):
        await run(empty_database, sql)


async def test_a_syntax_error_is_not_retryable(empty_database: Database) -> None:
    """The same text can never pass."""
    with pytest.raises(StatementFault) as raised:
        await run(empty_database, "selec 1")
    assert not raised.value.retryable


async def test_a_copy_from_or_to_the_client_is_refused(empty_database: Database) -> None:
    """One would lose its output, the other wait for ever."""
    for sql in ("copy (select 1) to stdout", "copy t from stdin"):
        with pytest.raises(StatementFault, match="have no client here") as raised:
            await run(empty_database, "create table t (a int)", sql)
        assert not raised.value.retryable


async def test_rows_above_the_limit_are_refused(empty_database: Database) -> None:
    """Before the memory is full."""
    with pytest.raises(StatementFault, match="larger than the limit"):
        await run(empty_database, "select repeat('x', 100) from generate_series(1, 2000000)", limit=10_000)


async def test_missing_parameters_are_refused(empty_database: Database) -> None:
    """The message has the expected number."""
    with pytest.raises(StatementFault, match="2 parameters, but 1 values"):
        await run(empty_database, "select $1::int, $2::int", values=[1])


async def test_an_unreachable_server_is_retryable() -> None:
    """The message does not have the password."""
    target = SqlTarget(dsn="postgresql://me:hush@127.0.0.1:1/x")
    with pytest.raises(StatementFault, match="cannot connect") as raised:
        await run_statements(target, [SqlStatement(sql="select 1")], largest_bytes=MANY_BYTES)
    assert raised.value.retryable
    assert "hush" not in str(raised.value)


async def test_a_time_limit_works_on_a_silent_connection(empty_database: Database) -> None:
    """Cancelling does not wait for a server that does not answer."""
    async with SilentProxy(empty_database, loses=b"pg_sleep") as proxy:
        running = asyncio.create_task(run(proxy.database, "create table t (a int)", "select pg_sleep(60)"))
        await proxy.dropped.wait()
        proxy.stop_answering()
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=PATIENCE_SECONDS)
        assert done
        assert running.cancelled()
