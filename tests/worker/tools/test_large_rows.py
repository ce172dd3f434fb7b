"""The postgres tool refuses rows larger than any result before the memory is full."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from noetl_broker.worker.tools.task import WorkerResources
from tests.postgres import Database
from tests.worker.alone import run_alone
from tests.worker.conftest import Perform, needs_proc

LARGE = "repeat('x', 100000000)"
ROWS = "the rows are larger than the limit of 1048576 bytes; select fewer rows or columns, or a part of a value"
MESSAGE = "the server sends an error or a notice of 1000"


def sql(command: str) -> dict[str, Any]:
    """Make a postgres action."""
    return {"type": "postgres", "command": command}


ACTIONS = [
    (sql(f"select {LARGE} as a"), ROWS),
    (sql(f"begin; select {LARGE} as a; commit"), ROWS),
    (sql("select repeat('x', 1000000) as a from generate_series(1, 300)"), ROWS),
    (sql("begin; select 1 as a from generate_series(1, 3000000); commit"), ROWS),
    (sql("begin; select from generate_series(1, 3000000); commit"), ROWS),
    (sql(f"do $$ begin raise exception '%', {LARGE}; end $$"), MESSAGE),
    (sql(f"do $$ begin raise notice '%', {LARGE}; end $$"), MESSAGE),
    ({"type": "save", "statement": f"select {LARGE} as a", "data": {"b": 1}}, ROWS),
]


@needs_proc
async def test_large_rows_take_little_memory(empty_database: Database) -> None:
    """Each step fails without a retry, with the limit and a remedy."""
    told = await run_alone(*(action for action, _ in ACTIONS), dsn=empty_database.dsn)
    for answer, (_, words) in zip(told, ACTIONS, strict=True):
        assert answer["error"]["type"] == "postgres"
        assert words in answer["error"]["message"]
        assert "connection" not in answer["error"]["message"]


@pytest.mark.parametrize(
    "command, expected",
    [
        # four bytes and a length each in the protocol
        ("select array_fill(0::int8, array[340000]) as a", [{"a": [0] * 340_000}]),
        ("select 1 as a from generate_series(1, 100000)", [{"a": 1}] * 100_000),
        # notices are not stored
        (
            "do $$ begin for n in 1..12000 loop raise notice '%', repeat('x', 1000); end loop; end $$; select 1 as a",
            [{"a": 1}],
        ),
    ],
    ids=["numbers", "many rows", "notices"],
)
async def test_the_text_of_the_rows_is_the_limit(
    perform: Perform, shared: WorkerResources, empty_database: Database, command: str, expected: list[Any]
) -> None:
    """They may be larger in the protocol."""
    using = dataclasses.replace(shared, dsn=empty_database.dsn)
    assert (await perform(sql(command), using=using))["rows"] == expected
