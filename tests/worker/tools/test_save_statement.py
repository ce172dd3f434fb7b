"""A `save` with a `statement` and a list: the statement runs once for each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.worker.conftest import failed
from tests.worker.tools.test_postgres import OnDatabase, Rows, on_database, rows_of

__all__ = ["on_database", "rows_of"]
ROWS = [{"a": 1, "b": "x"}, {"b": "y", "a": 2, "c": None}]


def saving(statement: str, data: Any, key: str = "data") -> dict[str, Any]:
    """Make an action with this save."""
    return {"type": "save", "statement": statement, key: data}


@pytest.mark.parametrize("key", ["data", "params"])
async def test_a_statement_runs_once_for_each_row(
    on_database: OnDatabase, rows_of: Callable[[str], Rows], key: str
) -> None:
    """With the values of that row by name; all statements of a text, in one transaction."""
    rows_of("create table t (a int, b text)")
    statement = "insert into t values (:a, :b); insert into t values (:a + 10, :b)"
    assert (await on_database(saving(statement, ROWS, key)))["row_count"] == 4
    assert rows_of("select a, b from t order by a") == [(1, "x"), (2, "y"), (11, "x"), (12, "y")]
    failed(await on_database(saving("insert into t values (:a, 'lost')", [{"a": 5}, {"a": "no number"}], key)))
    assert rows_of("select count(*) from t where b = 'lost'") == [(0,)]


async def test_a_statement_without_rows_saves_nothing(on_database: OnDatabase, rows_of: Callable[[str], Rows]) -> None:
    """The list is empty; a statement that names no value runs."""
    rows_of("create table t (a int)")
    await on_database(saving("insert into t values (:a); insert into t values (7)", []))
    assert rows_of("select a from t") == [(7,)]


async def test_a_row_without_a_named_value_is_refused(on_database: OnDatabase, rows_of: Callable[[str], Rows]) -> None:
    """The message names the row and the value; nothing runs."""
    rows_of("create table t (a int, b text)")
    outcome = await on_database(saving("insert into t values (:a, :b)", [{"a": 1, "b": "x"}, {"a": 2}]))
    assert "row 1 of the data has no 'b'" in failed(outcome)["message"]
    assert (outcome.retryable, rows_of("select a from t")) == (False, [])


@pytest.mark.parametrize("data", [[3, "z"], [3, {"k": "z"}]])
async def test_a_list_of_values_is_for_numbered_parameters(
    on_database: OnDatabase, rows_of: Callable[[str], Rows], data: list[Any]
) -> None:
    """As in a postgres step."""
    rows_of("create table t (a int, b jsonb)")
    await on_database(saving("insert into t values ($1, $2)", data))
    assert rows_of("select a, b from t") == [tuple(data)]


async def test_mappings_can_be_values_of_numbered_parameters(
    on_database: OnDatabase, rows_of: Callable[[str], Rows]
) -> None:
    """They are documents."""
    rows_of("create table t (a jsonb, b jsonb)")
    await on_database(saving("insert into t values ($1, $2)", [{"k": 1}, {"k": 2}]))
    assert rows_of("select a, b from t") == [({"k": 1}, {"k": 2})]
