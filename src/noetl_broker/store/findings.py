"""What an examination of a database finds, with why it matters and what to do, and from where on it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

State = Literal["ok", "notice", "problem"]


class Finding(NamedTuple):
    """One thing that was looked at: `says` what is so; of what is not well also `why` that matters and what to `do`.

    `facts` are the figures in it, for programs: seconds, counts, bytes, names.
    """

    check: str
    state: State
    says: str
    why: str | None = None
    do: str | None = None
    facts: dict[str, Any] = {}  # noqa: RUF012 - read, never written


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From where on something is told; times in seconds, shares from 0 to 1."""

    probe_seconds: float = 3.0  # a notification is heard within milliseconds
    slow_trip_seconds: float = 0.02  # four of them make a turn
    clock_seconds: float = 2.0
    connections_share: float = 0.85
    unread_seconds: float = 10.0  # two sweeps
    lease_seconds: float = 10.0  # a broker looks every second
    job_seconds: float = 60.0
    dead_rows: int = 50_000
    dead_share: float = 0.5  # of the live rows of a table
    snapshot_seconds: float = 300.0
    queue_share: float = 0.1
