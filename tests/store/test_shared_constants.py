"""Limits, event types, node ids and columns are the same in SQL and Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from noetl_broker.broker import event_types, limits
from noetl_broker.broker.state import CANCELLED, COMPLETED, FAILED, LIVE, NEW, is_live
from noetl_broker.playbook.keywords import BROKER_TYPES, CONTROL_TYPES, SINCE
from noetl_broker.playbook.plain_values import KEY_BYTES, NAME_CHARS
from noetl_broker.store import queries, row_layout
from noetl_broker.store.claimed_rows import node_id
from noetl_broker.store.migrations import compat_noetl, migrations
from noetl_broker.worker.tools.task import RESULT_BYTES
from tests.brokers import rows, value
from tests.postgres import Database

FILES = [migration.text for migration in (*migrations(), compat_noetl())]
STATEMENTS = Path(queries.__file__).with_name("sql").glob("*/*.sql")
SQL = "\n".join([*FILES, *(file.read_text(encoding="utf-8") for file in STATEMENTS)])
LIMITS = {
    "payload_bytes": limits.MAX_PAYLOAD_BYTES,
    "result_bytes": limits.MAX_RESULT_BYTES,
    "form_bytes": limits.MAX_FORM_BYTES,
    "log_bytes": limits.MAX_LOG_BYTES,
    "path_chars": limits.MAX_PATH_CHARS,
    "name_chars": NAME_CHARS,
    "key_bytes": KEY_BYTES,
    "error_bytes": limits.ERROR.total,
    "reason_chars": limits.ERROR.message_chars,
    "item_errors": limits.MAX_ITEM_ERRORS,
    "item_index": limits.MAX_ITEM_INDEX,
    "starts": limits.MAX_STARTS,
}


async def test_limits_of_sql_equal_those_of_python(database: Database) -> None:
    """Worker and broker have one limit for results."""
    assert (
        dict(await rows(database, "select name, noetl.limit_of(name) from unnest($1::text[]) name", [*LIMITS]))
        == LIMITS
    )
    assert RESULT_BYTES == limits.MAX_RESULT_BYTES


async def test_sql_reads_known_limits_only(database: Database) -> None:
    """A misspelt name would give null, which is never exceeded."""
    names = sorted(set(re.findall(r"limit_of[(]'(\w+)'[)]", SQL)))
    assert names
    missing = "select name from unnest($1::text[]) name where noetl.limit_of(name) is null"
    assert await rows(database, missing, names) == []


async def test_own_types_of_sql_are_those_of_python(database: Database) -> None:
    """A worker cannot take a name that the broker runs; those that are not built yet are reserved."""
    own = {*CONTROL_TYPES, *BROKER_TYPES, "workbook"}
    names = [*own, *SINCE, "fail", "python", "resize"]
    found = dict(await rows(database, "select name, noetl.is_own_type(name) from unnest($1::text[]) name", names))
    assert found == {name: name not in {"python", "resize"} for name in names}


async def test_event_types_of_sql_have_the_aliases_of_the_core(database: Database) -> None:
    """In any case."""
    names = [*event_types.ALIASES, *(name.upper() for name in event_types.ALIASES), "step_completed"]
    found = dict(await rows(database, "select name, noetl.kind_of(name) from unnest($1::text[]) name", names))
    assert found == {name: event_types.canonical_event_type(name) for name in names}


def test_one_sql_function_names_the_aliases() -> None:
    """All other SQL calls it."""
    aliases = {name for name, kind in event_types.ALIASES.items() if name != kind}
    literals = [name for name in re.findall(r"'(\w+)'", SQL) if name in aliases]
    assert sorted(literals) == sorted(aliases)


@pytest.mark.parametrize("visit, place", [(1, None), (2, None), (1, 0), (3, 17), (12, 999_999_999)])
async def test_sql_and_python_make_and_read_the_same_node_ids(
    database: Database, visit: int, place: int | None
) -> None:
    """Of visits and of items."""
    node = node_id(7, "a_b-c", visit, place)
    made = "select noetl.node_id(7, 'a_b-c', $1)"
    if place is None:
        assert await value(database, made, visit) == node
        assert await rows(database, "select visit_node_id from noetl.parse_item($1)", node) == []
    else:
        assert await value(database, f"select noetl.item_node_id(({made}), $2)", visit, place) == node
        assert await rows(database, "select * from noetl.parse_item($1)", node) == [(node_id(7, "a_b-c", visit), place)]


def test_an_unknown_column_of_a_row_is_refused() -> None:
    """So SQL and Python cannot drift apart."""
    assert row_layout.with_positions("d ->> {step.visits}") == "d ->> 3"
    with pytest.raises(ValueError, match="not in tuple"):
        row_layout.with_positions("d ->> {step.visit}")


async def test_sql_and_python_know_the_same_live_statuses(database: Database) -> None:
    """No other status is live, and an execution row takes no unknown one."""
    names = [*LIVE, NEW, COMPLETED, FAILED, CANCELLED]
    found = dict(await rows(database, "select name, noetl.is_live(name) from unnest($1::text[]) name", names))
    assert found == {name: is_live(name) for name in names}
    assert [name for name in names if found[name]] == [*LIVE]


def test_sql_asks_one_predicate_whether_an_execution_lives() -> None:
    """The aliases are those of noetl.execution. Items and tracking rows have a status RUNNING of their own."""
    assert re.findall(r"\b(?:x|c|p|d|execution)[.]status (?:=|<>|is (?:not )?distinct from) '+RUNNING'", SQL) == []


async def test_the_indexes_of_live_executions_serve_the_predicate(database: Database) -> None:
    """A plan inlines the function, also for a status that only implies it."""
    for condition, index in (
        ("noetl.is_live(x.status) and x.execution_id > 7", "execution_live"),
        ("noetl.is_live(x.status) and x.parent_execution_id = 7", "execution_children"),
        ("x.parent_execution_id = 7", "execution_parents"),
        ("x.status = 'PAUSED' and x.execution_id > 7", "execution_held"),
    ):
        statement = f"explain select from noetl.execution x where {condition}"
        plan = await rows(database, statement)
        assert any(index in line for (line,) in plan), plan
