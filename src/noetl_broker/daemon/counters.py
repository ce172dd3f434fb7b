"""What the lanes of one process did since it started: plain numbers, counted where it happens, shown by figures.py."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from noetl_broker.broker.dispatcher import REACTIONS, RECORDED
from noetl_broker.broker.model import ALIASES
from noetl_broker.store.rows import Taken
from noetl_broker.store.unit import ConflictFault

# Upper bounds of the histograms, in seconds; what is above the last has a place of its own.
WAIT_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
BATCH_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LATE_SECONDS = 0.1  # mail that waited longer than any pause between two looks

# A label has few values, whatever strangers write: what is not named here is "other".
KINDS = {**ALIASES, **{kind: kind for kind in (*REACTIONS, *RECORDED)}}
LIMITS = frozenset({
    "max_visits", "max_open_jobs", "max_nesting", "max_turns", "max_fan_out", "max_result_bytes", "max_gathered_bytes",
    "max_payload_bytes", "max_payload_keys", "max_path_chars",
})  # fmt: skip
MOST_STATES = 100  # SQLSTATEs that are counted apart: a trigger of anybody may raise what it likes
OTHER = "other"
STATUSES = ("COMPLETED", "FAILED", "CANCELLED")
REAPED = ("requeued", "lost", "timed_out", "overdue", "woken", "pulled_back")


class Histogram:
    """How often a value fell below which bound, and the sum of all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Nothing observed yet."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a clock that goes back gives 0."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += max(value, 0.0)

    def above(self, bound: float) -> int:
        """How many values were greater than one of the bounds."""
        return sum(self.counts[self.bounds.index(bound) + 1 :])


@dataclass(slots=True)
class Counters:
    """Counts; `drains`: how often it looked for mail, `largest_batch`: the most turns that one transaction held.

    `swept`: mail that nobody had rung for, found by the look after `sweep_seconds`; `deaf`: how often the listener did
    not hear its probe; `spans`: ends that were told to who reads traces; `clock_steps`: how often the server's clock
    stepped back, and by how many seconds in all. By label: `outcomes` turns by event type and
    outcome, `ended` executions by status, `limits` executions ended by a limit, `faults` of the database by SQLSTATE,
    `reaped` what the reaper did.
    """

    drains: int = 0
    batches: int = 0
    turns: int = 0
    misses: int = 0
    retries: int = 0
    set_aside: int = 0
    largest_batch: int = 0
    swept: int = 0
    deaf: int = 0
    spans: int = 0
    spans_dropped: int = 0
    clock_steps: int = 0
    clock_step_seconds: float = 0.0
    outcomes: dict[tuple[str, str], int] = field(default_factory=dict)
    # What is known beforehand is there from the start: an alert sees the first of them as a rise.
    ended: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    limits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(sorted(LIMITS), 0))
    faults: dict[str, int] = field(default_factory=dict)
    reaped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REAPED, 0))
    waits: Histogram = field(default_factory=lambda: Histogram(WAIT_BOUNDS))
    claim: Histogram = field(default_factory=lambda: Histogram(BATCH_BOUNDS))
    evaluation: Histogram = field(default_factory=lambda: Histogram(BATCH_BOUNDS))
    transaction: Histogram = field(default_factory=lambda: Histogram(BATCH_BOUNDS))

    def tell_turns(self, taken: Iterable[Taken]) -> None:
        """Count turns that were committed: what was read, what came of it, how long it had waited. A hot path."""
        outcomes, waits = self.outcomes, self.waits
        for mail, _, decision in taken:
            kind = mail.event.type
            key = KINDS.get(kind) or KINDS.get(kind.lower(), OTHER), decision.outcome
            outcomes[key] = outcomes.get(key, 0) + 1
            waits.observe(mail.waited)
            if decision.ended is not None:
                _count(self.ended, decision.ended.status)
                error = decision.ended.error or {}
                limit = error.get("type")
                if isinstance(limit, str) and limit in LIMITS and "child_execution_id" not in error:  # else its child's
                    _count(self.limits, limit)

    def tell_fault(self, error: BaseException) -> None:
        """Count a fault of the database, or another broker that was first, after which the work is done again."""
        state = "conflict" if isinstance(error, ConflictFault) else str(getattr(error, "sqlstate", None) or "none")
        _count(self.faults, state if state in self.faults or len(self.faults) < MOST_STATES else OTHER)

    def tell_reaped(self, what: Iterable[tuple[str, int | None]]) -> None:
        """Count what the reaper did, by the names that it gives."""
        for name, count in what:
            self.reaped[name] = self.reaped.get(name, 0) + (count or 0)


def _count(counts: dict[str, int], label: str) -> None:
    counts[label] = counts.get(label, 0) + 1
