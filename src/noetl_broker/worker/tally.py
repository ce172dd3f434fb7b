"""What a worker did from its start to its end, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Tally:
    """Jobs that were `leased`, and answers that counted: `done`, or `failed`, which says nothing of a further attempt.

    What is neither was let go at the stop, had lost its lease, or could not be answered before the stop.
    """

    leased: int = 0
    done: int = 0
    failed: int = 0

    def add(self, *, done: bool, counted: bool) -> None:
        """Add an answer."""
        if done:
            self.done += counted
        else:
            self.failed += counted
