"""Counts of a worker's jobs and answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Stats:
    """Jobs that were `leased`, and answers that counted: `done`, or `failed`, after which a retry may follow.

    `cancelled` jobs were stopped, because nobody wants their result. The others were released at the stop, had lost
    their lease, or could not be answered before the stop.
    """

    leased: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
