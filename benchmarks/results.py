"""Results of benchmarks: the rounds of one quantity, its bar, and the speed of the disk during the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Bar(NamedTuple):
    """A limit for the median."""

    limit: float
    at_most: bool

    def holds(self, value: float) -> bool:
        """Tell whether the value meets the bar."""
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        """Return the bar as in the table."""
        return f"{'≤' if self.at_most else '≥'} {self.limit:,g}"


class Probe(NamedTuple):
    """The speed of the machine in a round, in milliseconds: one fdatasync, and one commit of one row."""

    fdatasync: float
    commit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table: a value for each round, in order."""

    figure: str
    what: str
    unit: str
    values: tuple[float, ...]
    bar: Bar | None = None
    beside: dict[str, float] = field(default_factory=dict)  # medians of other values of the same rounds
    probes: tuple[Probe, ...] = ()

    @property
    def median(self) -> float:
        """The median of the rounds, which the bar is for."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None if there is no bar."""
        return None if self.bar is None else self.bar.holds(self.median)

    def as_json(self) -> dict[str, Any]:
        """Return the row as JSON."""
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
    """Return an upper limit."""
    return Bar(limit, at_most=True)


def at_least(limit: float) -> Bar:
    """Return a lower limit."""
    return Bar(limit, at_most=False)


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """Return the ratio of each round."""
    return tuple(one / other for one, other in zip(above, below, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is not below this share of all values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * int(share * 1000) // 1000) - 1))]
