"""Values without a JSON type, or that the driver cannot represent: nothing is lost."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_broker.worker.sql.run import SqlStatement, SqlTarget, StatementFault, run_statements
from tests.postgres import Database


async def given(database: Database, *statements: str, prepared: tuple[str, ...] = ()) -> list[Any]:
    """Give the only value that each of these statements returns, after those that return nothing."""
    script = [SqlStatement(sql=sql) for sql in (*prepared, *statements)]
    results = await run_statements(SqlTarget(dsn=database.dsn), script, largest_bytes=1_000_000)
    return [value for result in results[len(prepared) :] for row in result.rows for value in row.values()]


TEXTS = [
    "'1 month'::interval", "'-1 year -2 mons +3 days -04:05:06.7'::interval", "'0'::interval",
    "'-1 day 00:00:00.000001'::interval", "'36:00'::interval", "'1 mon -1 day'::interval",
    "'infinity'::timestamptz", "'-infinity'::timestamp", "'infinity'::date", "'-infinity'::date",
    "'9999-12-31'::date", "'0001-01-01'::date", "'0044-03-15 BC'::date", "'0001-02-29 BC'::date",
    "'4713-01-01 BC'::date", "'5874897-12-31'::date", "'12000-02-29'::date", "'12000-01-01 01:02:03.5'::timestamp",
    "'0044-03-15 10:00 BC'::timestamp", "'12000-01-01 10:00+00'::timestamptz", "'0401-02-29 BC'::timestamptz",
    "'24:00'::time", "'10:00'::time",
    "'infinity'::numeric", "B'101'", "B'101111111101'::varbit", "'[(0,0),(1,1.5)]'::path",
    "'((0,0),(1,1))'::path", "'((0,0),(1,1))'::polygon", "'r'::\"char\"", "''::\"char\"", "'1/AF'::pg_lsn",
    "daterange('2024-01-01', 'infinity')", "numrange(1.23456789012345678, 2)",
]  # fmt: skip
COMMON = [
    ("'2026-01-02 03:04:05.5+02'::timestamptz", "2026-01-02T01:04:05.500000+00:00"),
    ("'2026-01-02 03:04:05'::timestamp", "2026-01-02T03:04:05"),
    ("'9999-12-31 23:59:59.999999'::timestamp", "9999-12-31T23:59:59.999999"),
    ("'10:00:00.5'::time", "10:00:00.500000"),
    ("'10:00+02'::timetz", "10:00:00+02:00"),
    ("'24:00-02:30'::timetz", "24:00:00-02:30"),
    ("1234567.89::numeric", 1234567.89),
    ("12345678901234567.89::numeric", 12345678901234567.89),
    ("avg(x) from (values (10), (10), (11)) as t (x)", 10.333333333333334),
    ("30001::numeric / 3", 10000.333333333334),
    ("1::numeric / 30", 0.03333333333333333),
    ("1000000::numeric / 7", 142857.14285714287),
    ("sqrt(2::numeric)", 1.414213562373095),
]
NESTED = [
    ("('infinity', '1 mon', 12345678901234567.89, '{\"a\": 1}', '[1]')::visit",
     {"at": "infinity", "span": "1 mon", "amount": 12345678901234567.89, "more": {"a": 1}, "old": [1]}),
    ("row('1 mon'::interval, '-infinity'::date, '{\"b\": 2}'::jsonb, B'101', '[(0,0),(1,1)]'::path)",
     ["1 mon", "-infinity", {"b": 2}, "101", "[(0,0),(1,1)]"]),
    ("array['1 mon 2 days'::interval, null]", ["1 mon 2 days", None]),
    ("array['infinity'::day]", ["infinity"]),
    ("array['r', null, '\\200']::\"char\"[]", ["r", None, "\\200"]),
    ("tstzrange('2024-01-01Z', 'infinity')", "[2024-01-01T00:00:00+00:00,infinity)"),
    ("datemultirange(daterange('2024-01-01', 'infinity'))", ["[2024-01-01,infinity)"]),
]  # fmt: skip


async def test_values_without_a_json_type_are_the_text_of_postgres(empty_database: Database) -> None:
    """A statement can read that text back as the same value."""
    zone = ("set timezone to 'UTC'",)
    values = await given(empty_database, *(f"select {expression} as it" for expression in TEXTS), prepared=zone)
    texts = await given(empty_database, *(f"select ({expression})::text as it" for expression in TEXTS), prepared=zone)
    assert values == texts


async def test_common_values_have_their_usual_form(empty_database: Database) -> None:
    """Timestamps are ISO 8601, and numbers are numbers."""
    found = await given(empty_database, *(f"select {expression}" for expression, _ in COMMON))
    assert found == [value for _, value in COMMON]


async def test_an_infinite_interval_is_text(empty_database: Database) -> None:
    """On servers that have one."""
    if await given(empty_database, "select current_setting('server_version_num')::int >= 170000") == [True]:
        infinite = await given(empty_database, "select array['infinity'::interval, '-infinity'] as it")
        assert infinite == [["infinity", "-infinity"]]


async def test_nested_values_are_converted_too(empty_database: Database) -> None:
    """In arrays, ranges, rows, composite types and domains."""
    made = (
        "create domain day as date",
        "create type visit as (at timestamptz, span interval, amount numeric, more jsonb, old json)",
    )
    found = await given(empty_database, *(f"select {expression} as it" for expression, _ in NESTED), prepared=made)
    assert found == [value for _, value in NESTED]


async def test_a_value_that_the_driver_cannot_read_fails_the_statement(empty_database: Database) -> None:
    """It is not retryable."""
    with pytest.raises(StatementFault, match="no decoder for composite type element") as raised:
        await given(empty_database, "create type pair as (a int, b int)", "select row((1, 2)::pair) as it")
    assert not raised.value.retryable
