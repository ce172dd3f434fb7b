"""The postgres tool refuses rows larger than any result before the memory is full."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from noetl_broker.worker.tools.task import WorkerResources
from tests.postgres import Database
from tests.worker.alone import MOST_KIB, run_alone
from tests.worker.conftest import Perform, needs_proc

LARGE = "repeat('x', 100000000)"
ROWS = "the rows are larger than the limit of 1048576 bytes; select fewer rows or columns, or a part of a value"
MESSAGE = "the server sends an error or a notice of 1000"


def sql(command: str) -> dict[str, Any]:
    """Make a postgres action."""
    return {"type": "postgres", "command": command}


@needs_proc
@pytest.mark.parametrize(
    "action, words",
    [
        (sql(f"select {LARGE} as a"), ROWS),
        (sql(f"begin; select {LARGE} as a; commit"), ROWS),
        (sql("select repeat('x', 1000000) as a from generate_series(1, 300)"), ROWS),
        (sql("begin; select 1 as a from generate_series(1, 3000000); commit"), ROWS),
        (sql("begin; select from generate_series(1, 3000000); commit"), ROWS),
        (sql(f"do $$ begin raise exception '%', {LARGE}; end $$"), MESSAGE),
        (sql(f"do $$ begin raise notice '%', {LARGE}; end $$"), MESSAGE),
        ({"type": "save", "statement": f"select {LARGE} as a", "data": {"b": 1}}, ROWS),
    ],
)
async def test_large_rows_take_little_memory(empty_database: Database, action: dict[str, Any], words: str) -> None:
    """The step fails without a retry, with the limit and a remedy."""
    told = await run_alone(action, dsn=empty_database.dsn, limit=60)
    assert told["grown_kib"] < MOST_KIB
    assert told["error"]["type"] == "postgres"
    assert words in told["error"]["message"]
    assert "connection" not in told["error"]["message"]


async def test_rows_of_numbers_may_be_larger_in_the_protocol(
    perform: Perform, shared: WorkerResources, empty_database: Database
) -> None:
    """Four bytes and a length each."""
    using = dataclasses.replace(shared, dsn=empty_database.dsn)
    result = await perform(sql("select array_fill(0::int8, array[340000]) as a"), using=using)
    assert result["rows"] == [{"a": [0] * 340_000}]


async def test_many_small_rows_fit(perform: Perform, shared: WorkerResources, empty_database: Database) -> None:
    """Their text is the limit."""
    using = dataclasses.replace(shared, dsn=empty_database.dsn)
    result = await perform(sql("select 1 as a from generate_series(1, 100000)"), using=using)
    assert result["row_count"] == 100_000


async def test_notices_do_not_count(perform: Perform, shared: WorkerResources, empty_database: Database) -> None:
    """They are not stored."""
    using = dataclasses.replace(shared, dsn=empty_database.dsn)
    many = "do $$ begin for n in 1..12000 loop raise notice '%', repeat('x', 1000); end loop; end $$; select 1 as a"
    assert (await perform(sql(many), using=using))["rows"] == [{"a": 1}]
