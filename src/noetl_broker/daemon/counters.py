"""What the lanes of one process did since it started."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Counts; `drains`: how often it looked for mail, `largest_batch`: the most turns that one transaction held."""

    drains: int = 0
    batches: int = 0
    turns: int = 0
    misses: int = 0
    retries: int = 0
    set_aside: int = 0
    largest_batch: int = 0
