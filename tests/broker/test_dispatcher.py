"""The tables of outcomes: the outcome of each event."""

from __future__ import annotations

from noetl_broker.broker.dispatcher import BY_STATUS, BY_VISIT, STATUS_TABLE
from tests.docs.pages import code_blocks, read_page


def test_the_rows_on_the_architecture_page_are_those_of_the_code() -> None:
    """Some of them, as they stand there."""
    [shown] = [block for block in code_blocks(read_page("architecture"), "") if "not started" in block]
    assert [line for line in shown.splitlines() if line not in STATUS_TABLE.splitlines()] == []


def test_each_row_of_the_tables_has_all_columns() -> None:
    """A cell is read by the names of its row and column."""
    assert {tuple(row) for row in BY_STATUS.values()} == {
        ("not started", "queued", "running", "paused", "compensating", "ended")
    }
    columns = ("worker", "adopting", "children", "items", "child", "restarted", "delay", "wait")
    assert {tuple(row) for row in BY_VISIT.values()} == {columns}
    assert BY_VISIT["child_due"]["delay"] == "reacts"
