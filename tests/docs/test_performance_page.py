"""The page on performance says what was measured."""

from __future__ import annotations

from benchmarks.page import PAGE, filled
from benchmarks.results import Row, at_least, at_most, percentile, ratios


def test_the_page_shows_the_results_that_are_kept() -> None:
    """Its table is made from benchmarks/results/results.json: `python -m benchmarks.page` writes it anew."""
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page


def test_a_bar_is_held_against_the_median() -> None:
    """Neither a lucky round nor an unlucky one decides."""
    values = (1.0, 2.0, 9.0)
    rows = [Row(figure="f", what="w", unit="s", values=values, bar=bar) for bar in (at_most(2), at_least(3), None)]
    assert [row.met for row in rows] == [True, False, None]


def test_ratios_are_made_round_by_round() -> None:
    """What was measured side by side is divided side by side."""
    assert ratios([4.0, 9.0], [2.0, 3.0]) == (2.0, 3.0)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """The smallest one that so many are not above."""
    assert [percentile([3.0, 1.0, 2.0, 4.0], share) for share in (0.5, 0.99)] == [2.0, 4.0]
