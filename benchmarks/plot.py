"""A plot of the results: how far each bar is reached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

mpl.use("svg")  # no screen is needed


def draw(path: Path) -> None:
    """Draw each row that has a bar as a ratio to it: above 1 the bar is reached, for ≤ and for ≥."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    rows = [row for row in kept["rows"] if row["bar"] and row["median"] > 0 and limit(row) > 0]
    figure, axes = plt.subplots(figsize=(9, 1 + 0.3 * len(rows)), layout="constrained")
    for index, row in enumerate(reversed(rows)):
        low, middle, high = sorted(ratio(row, row[name]) for name in ("min", "median", "max"))
        axes.barh(index, middle, color="#3b7d5c" if row["met"] else "#b5533c")
        axes.plot([low, high], [index, index], color="#222222", linewidth=1.5)
    axes.set_yticks(range(len(rows)), [f"{row['figure']}: {row['what']} ({row['bar']})" for row in reversed(rows)])
    axes.set_xscale("log")
    axes.axvline(1, color="#222222", linewidth=1)
    axes.set_xlabel("ratio to the bar: right of 1 it is met; the line is from the worst to the best round")
    figure.savefig(path.with_suffix(".svg"))
    plt.close(figure)


def limit(row: dict[str, Any]) -> float:
    """Return the number of the bar."""
    return float(row["bar"].split()[1].replace(",", ""))


def ratio(row: dict[str, Any], value: float) -> float:
    """Return value / limit for ≥, limit / value for ≤."""
    return value / limit(row) if row["bar"].startswith("≥") else limit(row) / max(value, 1e-9)
