"""The table of faults that were tried, printed at the end of a run whichever process tried them."""

from __future__ import annotations

from typing import Any

PROPERTY = "chaos"


def lines(reports: list[Any]) -> list[str]:
    """One line for each fault: what was done, and what came of it; in the order of the tests."""
    faults = [
        told
        for report in sorted(reports, key=lambda report: report.nodeid)
        for name, told in report.user_properties
        if name == PROPERTY
    ]
    width = max((len(fault) for fault, _ in faults), default=0)
    return [f"{fault:{width}}  {outcome}" for fault, outcome in faults]
