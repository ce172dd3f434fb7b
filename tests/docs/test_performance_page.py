"""The results of docs/explanation/performance.md are computed as it says."""

from __future__ import annotations

from benchmarks.results import Row, at_least, at_most, percentile, ratios


def test_a_bar_is_compared_with_the_median() -> None:
    """One fast or slow round does not decide."""
    values = (1.0, 2.0, 9.0)
    rows = [Row(figure="f", what="w", unit="s", values=values, bar=bar) for bar in (at_most(2), at_least(3), None)]
    assert [row.met for row in rows] == [True, False, None]


def test_ratios_are_computed_round_by_round() -> None:
    """Each round has its own ratio."""
    assert ratios([4.0, 9.0], [2.0, 3.0]) == (2.0, 3.0)


def test_a_percentile_is_a_measured_value() -> None:
    """It is never interpolated."""
    assert [percentile([3.0, 1.0, 2.0, 4.0], share) for share in (0.5, 0.99)] == [2.0, 4.0]
