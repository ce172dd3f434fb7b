"""The tables of outcomes: the outcome of each event."""

from __future__ import annotations

from pathlib import Path

import pytest

from noetl_broker.broker.dispatcher import BY_STATUS, BY_VISIT, DRAINING_TABLE, STATUS_TABLE, VISIT_TABLE

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "architecture.md"


@pytest.mark.parametrize("table", [STATUS_TABLE, VISIT_TABLE, DRAINING_TABLE])
def test_the_architecture_page_prints_the_tables_of_outcomes(table: str) -> None:
    """The page equals the code."""
    assert f"```\n{table}```" in PAGE.read_text(encoding="utf-8")


def test_each_row_of_the_tables_has_all_columns() -> None:
    """A cell is read by the names of its row and column."""
    assert {tuple(row) for row in BY_STATUS.values()} == {
        ("not started", "queued", "running", "paused", "compensating", "ended")
    }
    columns = ("worker", "adopting", "children", "items", "child", "restarted", "delay", "wait")
    assert {tuple(row) for row in BY_VISIT.values()} == {columns}
    assert BY_VISIT["child_due"]["delay"] == "reacts"
