"""Decides what becomes of a schedule's moments: which one starts an execution, which are skipped, which comes next."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from typing import Final

from noetl_broker.playbook.cron import Every, Timing

MOST_MOMENTS: Final = 100  # that one move passes: about a millisecond
NO_MOMENT: Final = "its timing gives no further moment"
STEP: Final = timedelta(seconds=1)  # a clock that is ahead by less has not stepped back


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule as its row has it, with its timing read.

    The schedule has moments after `since_at`. Moments from `paused_at` until `resumed_at` passed during a pause.
    `moved_at` is when the row was last moved; `next_at` is the moment that was found then.
    """

    name: str
    timing: Timing
    since_at: datetime
    jitter: timedelta = timedelta(0)
    catch_up: timedelta = timedelta(hours=1)
    is_paused: bool = False
    paused_at: datetime | None = None
    resumed_at: datetime | None = None
    next_at: datetime | None = None
    moved_at: datetime | None = None

    def has_paused(self, moment: datetime) -> bool:
        """Whether the schedule is paused, or was at this moment."""
        if self.is_paused:
            return True
        if self.paused_at is None or self.resumed_at is None:
            return False
        return self.paused_at <= moment < self.resumed_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The move of a schedule: the moment to `start`, how many moments were `skipped`, and its next moment.

    `next_at` is the next moment, due at `due_at`: jitter is added. Both None: there is no further moment. `is_partial`:
    moments after these are due too.
    """

    since_at: datetime
    next_at: datetime | None
    due_at: datetime | None
    start: datetime | None = None
    skipped: int = 0
    pulled_back: bool = False
    is_partial: bool = False


def plan_move(
    schedule: Schedule, now: datetime, *, watched_since: datetime | None = None, most: int = MOST_MOMENTS
) -> Move:
    """Decide on the moments that are due.

    Moments that are late by more than `catch_up` or passed during a pause are skipped. The last other moment is
    started. A moment is not late if it became due after `watched_since`, when a broker began to watch. After `most`
    moments the move ends; the next one goes on from there.
    """
    if (back := _pull_back(schedule, now)) is not None:
        return back
    since, skipped, start = schedule.since_at, 0, None
    for passed, (moment, due) in enumerate(_due_moments(schedule, since)):
        if due > now:
            return Move(since_at=since, next_at=moment, due_at=due, start=start, skipped=skipped)
        if passed == most:  # later moments are due too, so this one is not the last
            skipped += start is not None
            return Move(since_at=since, next_at=moment, due_at=due, skipped=skipped, is_partial=True)
        since = moment
        is_missed = watched_since is None or due <= watched_since
        if schedule.has_paused(moment) or (is_missed and now - due > schedule.catch_up):
            skipped += 1
            continue
        skipped += start is not None
        start = moment
    return Move(since_at=since, next_at=None, due_at=None, start=start, skipped=skipped)


def _pull_back(schedule: Schedule, now: datetime) -> Move | None:
    """Count from now again if the clock stepped back and gives an earlier moment; else None."""
    if schedule.moved_at is None or schedule.moved_at <= now + STEP:
        return None
    moment, due = next(_due_moments(schedule, now), (None, None))
    if moment is None or due is None or (schedule.next_at is not None and moment >= schedule.next_at):
        return None
    timing = schedule.timing
    since = moment - timing.span if isinstance(timing, Every) else now
    return Move(since_at=since, next_at=moment, due_at=due, pulled_back=True)


def _due_moments(schedule: Schedule, after: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The moments after this one, each with the time when it is due.

    The jitter of a moment ends at the following moment: so they are due in their order.
    """
    for moment, following in pairwise(chain(schedule.timing.moments(after), (None,))):
        if moment is None:
            return
        jitter = schedule.jitter if following is None else min(schedule.jitter, following - moment)
        yield moment, moment + jitter * jitter_share(schedule.name, moment) if jitter else moment


def jitter_share(name: str, moment: datetime) -> float:
    """The share of the jitter that a moment gets, from 0 to 1: always the same for a name and a moment."""
    digest = hashlib.sha256(f"{name} {utc_text(moment)}".encode()).digest()
    return int.from_bytes(digest[:6]) / (1 << 48)


def utc_text(moment: datetime) -> str:
    """A moment as RFC 3339 in UTC: 2026-11-28T02:00:00Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
