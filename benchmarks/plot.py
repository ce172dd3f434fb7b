"""The results as a picture: how far each bar is reached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

mpl.use("svg")  # no screen is needed


def draw(path: Path) -> None:
    """Draw how each figure that has a bar stands to it: above 1 it is reached, whichever way the bar points."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    rows = [row for row in kept["rows"] if row["bar"] and row["median"] > 0 and limit(row) > 0]
    figure, axes = plt.subplots(figsize=(9, 1 + 0.3 * len(rows)), layout="constrained")
    for place, row in enumerate(reversed(rows)):
        low, middle, high = sorted(reach(row, row[name]) for name in ("min", "median", "max"))
        axes.barh(place, middle, color="#3b7d5c" if row["met"] else "#b5533c")
        axes.plot([low, high], [place, place], color="#222222", linewidth=1.5)
    axes.set_yticks(range(len(rows)), [f"{row['figure']}: {row['what']} ({row['bar']})" for row in reversed(rows)])
    axes.set_xscale("log")
    axes.axvline(1, color="#222222", linewidth=1)
    axes.set_xlabel("how far the bar is reached: right of 1 it is met; the line is from the worst to the best round")
    figure.savefig(path.with_suffix(".svg"))
    plt.close(figure)


def limit(row: dict[str, Any]) -> float:
    """The number in the bar."""
    return float(row["bar"].split()[1].replace(",", ""))


def reach(row: dict[str, Any], value: float) -> float:
    """How often the bar fits in the value, or the value in the bar."""
    return value / limit(row) if row["bar"].startswith("≥") else limit(row) / max(value, 1e-9)
