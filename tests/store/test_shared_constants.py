"""Limits, event types, node ids and columns are the same in SQL and Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from noetl_broker import node_ids
from noetl_broker.broker.model import event_types, limits
from noetl_broker.broker.state.state import CANCELLED, COMPLETED, FAILED, LIVE, NEW, is_live
from noetl_broker.playbook.keys import KEY_BYTES, NAME_CHARS
from noetl_broker.playbook.keywords import BROKER_TYPES, CONTROL_TYPES
from noetl_broker.playbook.throttle import MOST_RATE
from noetl_broker.store import queries, row_layout
from noetl_broker.store.connect.migrations import compat_noetl, migrations
from noetl_broker.worker.tools.task import RESULT_BYTES
from tests.brokers import rows, value
from tests.postgres import Database

FILES = [migration.text for migration in (*migrations(), compat_noetl())]
STATEMENTS = Path(queries.__file__).with_name("sql").glob("*/*.sql")
SQL_TEXTS = [*FILES, *(file.read_text(encoding="utf-8") for file in STATEMENTS)]
SQL = "\n".join(SQL_TEXTS)
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
    "node_chars": limits.MAX_NODE_CHARS,
    "starts": limits.MAX_STARTS,
    "rate": MOST_RATE,
}


async def test_limits_of_sql_equal_those_of_python(database: Database) -> None:
    """Worker and broker have one limit for results."""
    assert (
        dict(await rows(database, "select name, noetl.limit_of(name) from unnest($1::text[]) name", [*LIMITS]))
        == LIMITS
    )
    assert RESULT_BYTES == limits.MAX_RESULT_BYTES


async def test_checks_of_columns_have_these_limits(database: Database) -> None:
    """A check writes the number: a call of `limit_of` would be planned at each insert."""
    checks = await rows(
        database,
        """
        select c.conrelid::regclass::text, pg_get_constraintdef(c.oid)
        from pg_constraint c
        where c.contype = 'c' and c.connamespace = 'noetl'::regnamespace
        """,
    )
    size = re.compile(r"(\w*length)[(](\w+)[)] <= (\d+)")
    found = {(table, *each[:2]): int(each[2]) for table, check in checks for each in size.findall(check)}
    assert found == {("noetl.signal", "length", "name"): NAME_CHARS, ("noetl.signal", "octet_length", "key"): KEY_BYTES}


async def test_sql_reads_known_limits_only(database: Database) -> None:
    """A misspelt name would give null, which is never exceeded."""
    names = sorted(set(re.findall(r"limit_of[(]'(\w+)'[)]", SQL)))
    assert names
    missing = "select name from unnest($1::text[]) name where noetl.limit_of(name) is null"
    assert await rows(database, missing, names) == []


async def test_own_types_of_sql_are_those_of_python(database: Database) -> None:
    """A worker cannot take a name that the broker runs."""
    own = {*CONTROL_TYPES, *BROKER_TYPES, "workbook"}
    names = [*own, "python", "resize"]
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


NODES = [(1, None), (2, None), (1, 0), (3, 17), (12, 999_999_999)]


async def test_sql_and_python_make_and_read_the_same_node_ids(database: Database) -> None:
    """Of visits and of items, and of their undos."""
    made = "select noetl.node_id(7, 'a_b-c', $1)"
    for visit, index in NODES:
        node = node_ids.node_id(7, "a_b-c", visit, index)
        visit_node = node_ids.node_id(7, "a_b-c", visit)
        if index is None:
            assert await value(database, made, visit) == node
            assert await rows(database, "select visit_node_id from noetl.parse_item($1)", node) == []
            assert await value(database, "select noetl.visit_name($1, $2)", "a_b-c", visit) == node_ids.name_of_node(
                node
            )
            assert await value(database, "select noetl.items_prefix($1)", node) == node_ids.items_prefix(node)
        else:
            assert await value(database, f"select noetl.item_node_id(({made}), $2)", visit, index) == node
            assert await rows(database, "select * from noetl.parse_item($1)", node) == [(visit_node, index)]
            assert node_ids.item_node_id(visit_node, index) == node
        undo = await value(database, "select noetl.undo_node_id($1)", node)
        assert undo == node_ids.node_id(7, "a_b-c", visit, index, undo=True)
        for one in (node, undo):
            assert await rows(database, "select step, visit from noetl.parse_node($1)", one) == [("a_b-c", visit)]
            assert await value(database, "select noetl.is_item($1)", one) is (index is not None)
            assert await value(database, "select noetl.is_undo($1)", one) is (one == undo)
            assert node_ids.undone_node(one) == (
                node if one == undo and "#" in node else f"{visit_node}#1" if one == undo else None
            )


async def test_sql_and_python_refuse_the_same_node_ids(database: Database) -> None:
    """A NoETL server or a worker may write any text."""
    for node in ("", "7", "7:", "7:#2", "7:a#", "7:a#0", "7:a#x", "7:a#1.", "7:a#1.x", "7:a#1234567890"):
        assert node_ids.parse_node(node, None) == node_ids.NOWHERE
        assert await rows(database, "select step, visit from noetl.parse_node($1)", node) == [], node


@pytest.mark.parametrize("visit, index", NODES)
@pytest.mark.parametrize("step", ["fetch", "a[b", "two words", "charge!undo"])
def test_a_command_reads_the_name_that_is_shown(step: str, visit: int, index: int | None) -> None:
    """So each name can be pasted into a command. The first visit has no number."""
    shown = node_ids.visit_name(step, visit, index)
    assert node_ids.read_node(shown) == (step, None if visit == 1 else visit, index)
    assert node_ids.name_of_node(node_ids.job_node_id(7, step, visit, index)) == shown


def test_only_these_functions_know_the_parts_of_a_node_id() -> None:
    """All other SQL and Python calls them."""
    others = [text for text in SQL_TEXTS if "function noetl.parse_node" not in text]
    written = re.compile(r"split_part[(][^\n]*node_id[^\n]*'#'|'!undo'|'#' [|][|] [\w.]*visit|'#1'")
    assert [found for text in others for found in written.findall(text)] == []
    sources = Path(node_ids.__file__).parent.rglob("*.py")
    assert [
        (file.name, line)
        for file in sources
        if file.name != "node_ids.py"
        for line in file.read_text(encoding="utf-8").splitlines()
        if re.search(r"[}]#[{]\w*visit|\"#1\"|#1[.{]|\"!undo\"", line)
    ] == []


async def test_sql_and_python_name_a_playbook_without_a_name_alike(database: Database) -> None:
    """By the last part of its path; no other SQL takes a path apart."""
    for path in ("orders/daily/report", "report", "/report", "orders/", ""):
        assert await value(database, "select noetl.name_of_path($1)", path) == path.rpartition("/")[2]
    assert len(re.findall(r"'\^\.\*/'", SQL)) == 1


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


def test_sql_asks_one_predicate_whether_a_wait_is_over() -> None:
    """The definition is the only place with both statuses, beside the column's check."""
    assert len(re.findall(r"'open', 'signalled'", SQL)) == 2


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
