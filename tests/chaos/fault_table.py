"""The table of faults that were tried, printed at the end of a run."""

from __future__ import annotations

from typing import Any

PROPERTY = "chaos"


def lines(reports: list[Any]) -> list[str]:
    """One line for each fault with its outcome, in the order of the tests."""
    faults = [
        row
        for report in sorted(reports, key=lambda report: report.nodeid)
        for name, row in report.user_properties
        if name == PROPERTY
    ]
    width = max((len(fault) for fault, _ in faults), default=0)
    return [f"{fault:{width}}  {outcome}" for fault, outcome in faults]
