"""What a benchmark says: rounds of one quantity, what they are held against, and how fast the disk was meanwhile."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Bar(NamedTuple):
    """What is asked of the median."""

    limit: float
    at_most: bool

    def holds(self, value: float) -> bool:
        """Whether the value passes."""
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        """As in the table."""
        return f"{'≤' if self.at_most else '≥'} {self.limit:,g}"


class Probe(NamedTuple):
    """How fast the machine was beside a round, in milliseconds: one fdatasync, and one commit of one row."""

    fdatasync: float
    commit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: a value for each round, in the order in which they were measured."""

    figure: str
    what: str
    unit: str
    values: tuple[float, ...]
    bar: Bar | None = None
    beside: dict[str, float] = field(default_factory=dict)  # measured in the same rounds, medians
    probes: tuple[Probe, ...] = ()

    @property
    def median(self) -> float:
        """The middle of the rounds: what the bar is held against."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; None where there is none."""
        return None if self.bar is None else self.bar.holds(self.median)

    def as_json(self) -> dict[str, Any]:
        """The line as it is kept."""
        return {
            "figure": self.figure,
            "what": self.what,
            "unit": self.unit,
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "rounds": list(self.values),
            "bar": None if self.bar is None else str(self.bar),
            "met": self.met,
            "beside": self.beside,
            "fdatasync_ms": [probe.fdatasync for probe in self.probes],
            "commit_ms": [probe.commit for probe in self.probes],
        }


def at_most(limit: float) -> Bar:
    """The median must not be above it."""
    return Bar(limit, at_most=True)


def at_least(limit: float) -> Bar:
    """The median must not be below it."""
    return Bar(limit, at_most=False)


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """Round by round: what was measured side by side is divided side by side."""
    return tuple(one / other for one, other in zip(above, below, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * int(share * 1000) // 1000) - 1))]
