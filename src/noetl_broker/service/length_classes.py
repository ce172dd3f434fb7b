"""Percentiles of lengths of time that were counted in classes: quarters of an octave above one millisecond."""

from __future__ import annotations

from collections.abc import Mapping

PER_OCTAVE = 4  # `length_class` in store/sql/parts.sql is the same
SHORTEST = 0.001  # seconds


def bound_of(number: float) -> float:
    """The seconds with which a class begins; a fraction lies inside of it."""
    return float(SHORTEST * 2 ** (number / PER_OCTAVE))


def percentile(counts: Mapping[int, float], part: float) -> float | None:
    """The length that this part of all reached, in seconds; None if nothing was counted. It is right to within 10 %."""
    total = sum(counts.values())
    before = 0.0
    for number in sorted(counts):
        if before + counts[number] >= part * total > 0:
            return bound_of(number + (part * total - before) / counts[number])
        before += counts[number]
    return None
