"""The postgres tool and what a server sends that is larger than any result: it is refused before memory is full."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from noetl_broker.worker.tools.task import Lent
from tests.postgres import Database
from tests.worker.alone import MOST_KIB, needs_proc, run_alone
from tests.worker.conftest import Perform

LARGE = "repeat('x', 200000000)"
ROWS = "the rows are larger than the limit of 1048576 bytes; select fewer rows or columns, or a part of a value"
MESSAGE = "the server sends an error or a notice of 2000"


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
async def test_what_a_server_sends_takes_little_memory(
    empty_database: Database, action: dict[str, Any], words: str
) -> None:
    """The step fails for good, and is told the limit and what to do."""
    told = await run_alone(action, dsn=empty_database.dsn, limit=60)
    assert told["grown_kib"] < MOST_KIB
    assert told["error"]["type"] == "postgres"
    assert words in told["error"]["message"]
    assert "connection" not in told["error"]["message"]


async def test_a_result_of_numbers_takes_more_on_its_way(
    perform: Perform, lent: Lent, empty_database: Database
) -> None:
    """Four bytes and the length of each: as many as the rows of a result may have."""
    using = dataclasses.replace(lent, dsn=empty_database.dsn)
    result = await perform(sql("select array_fill(0::int8, array[340000]) as a"), using=using)
    assert result["rows"] == [{"a": [0] * 340_000}]


async def test_small_rows_are_as_many_as_fit(perform: Perform, lent: Lent, empty_database: Database) -> None:
    """What limits them is their text."""
    using = dataclasses.replace(lent, dsn=empty_database.dsn)
    result = await perform(sql("select 1 as a from generate_series(1, 100000)"), using=using)
    assert result["row_count"] == 100_000


async def test_notices_are_not_counted(perform: Perform, lent: Lent, empty_database: Database) -> None:
    """Nobody keeps them."""
    using = dataclasses.replace(lent, dsn=empty_database.dsn)
    many = "do $$ begin for n in 1..12000 loop raise notice '%', repeat('x', 1000); end loop; end $$; select 1 as a"
    assert (await perform(sql(many), using=using))["rows"] == [{"a": 1}]
