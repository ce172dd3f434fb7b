"""Limits of processor time that mean the same on each machine: they grow with the time that fixed work takes there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

REFERENCE_SECONDS = 0.005  # what `_fixed_work` takes on the machine that the limits were set on
ATTEMPTS = 5  # other processes of the machine may slow down single ones
Result = TypeVar("Result")


def slowness() -> float:
    """How many times longer this machine takes for fixed work, now; 1 where it is as fast or faster."""
    began = time.thread_time()
    _fixed_work()
    return max((time.thread_time() - began) / REFERENCE_SECONDS, 1.0)


def least_seconds(seconds: float, work: Callable[[], object]) -> float:
    """Seconds of processor time that the work takes, on the machine of the reference.

    The least of some attempts; the first that takes at most `seconds` is the last.
    """
    least = float("inf")
    for _ in range(ATTEMPTS):
        before, began = slowness(), time.thread_time()
        work()
        took = time.thread_time() - began
        least = min(least, took / max(before, slowness()))
        if least <= seconds:
            break
    return least


def within(seconds: float, work: Callable[[], Result]) -> Result:
    """Do the work, and give its result; each of some attempts takes more processor time: that is an error."""
    results: list[Result] = []
    least = least_seconds(seconds, lambda: results.append(work()))
    assert least <= seconds, f"it took {least:.3f} s of processor time, at most {seconds} s are allowed"
    return results[-1]


def _fixed_work() -> int:
    """Do what templates and checks do most: loops, texts, dictionaries."""
    found: dict[str, int] = {}
    for number in range(40_000):
        found[str(number)] = number % 7
    return len(found)
