"""What a run of tests says at its end: how many tests of which area passed, and how long they took."""

from __future__ import annotations

import os
from collections import Counter, defaultdict

import pytest

FAULT = "chaos"  # the property of a test that tried a fault: its name and the outcome
OUTCOMES = ("passed", "failed", "error", "skipped")


def write(reporter: pytest.TerminalReporter) -> None:
    """Write a table of the areas, which are the folders of tests; after `make chaos` also one of the faults."""
    reports = [(outcome, report) for outcome in OUTCOMES for report in reporter.getreports(outcome)]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: dict[str, float] = defaultdict(float)
    for outcome, report in reports:
        area = area_of(report.nodeid)
        counts[area][outcome] += 1
        seconds[area] += getattr(report, "duration", 0.0)
    if counts:
        reporter.section("areas: tests, and seconds of all test processes")
        reporter.write_line("\n".join(_rows(counts, seconds)))
    if os.environ.get("NOETL_CHAOS") == "long":
        in_order = sorted((report for _, report in reports), key=lambda report: report.nodeid)
        faults = [fault for report in in_order for name, fault in report.user_properties if name == FAULT]
        reporter.section("faults tried")
        reporter.write_line("\n".join(f"{fault:60}  {outcome}" for fault, outcome in faults))


def area_of(nodeid: str) -> str:
    """Return the folder of a test below `tests`; a test of no folder is one of the project."""
    _, *folders = nodeid.partition("::")[0].split("/")[:-1]
    return folders[0] if folders else "project"


def _rows(counts: dict[str, Counter[str]], seconds: dict[str, float]) -> list[str]:
    width = max(map(len, counts))
    rows = [f"{'':{width}}  " + "  ".join(f"{outcome:>7}" for outcome in (*OUTCOMES, "seconds"))]
    for area in sorted(counts):
        numbers = "  ".join(f"{counts[area][outcome]:>7}" for outcome in OUTCOMES)
        rows.append(f"{area:{width}}  {numbers}  {seconds[area]:>7.0f}")
    return rows
