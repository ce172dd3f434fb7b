"""Executions that are not decided on as all others, because the last try failed by them.

Of some the database refuses what is written: their mail is decided on one at a time. Of others somebody else's
transaction holds a row: a session that looks `for update`, or a start, not committed yet, of a child of which a worker
has told. Nothing is wrong with their mail, so none is set aside: it waits, nobody else's does, and every few seconds it
is tried again, after all others and for a moment.
"""

from __future__ import annotations

import time
from typing import NamedTuple, TypeAlias

import structlog

from noetl_broker.store.rows import Case, Mail, Outcome
from noetl_broker.store.unit import Claim

log = structlog.get_logger(__name__)

LEAVE_SECONDS = 5.0
LASTS_SECONDS = 30.0  # after which a person hears of it: a NoETL server may hold rows of what it starts for that long
FORGET_SECONDS = 15.0  # after that: others have decided on it
WARY_SECONDS = 60.0  # after the last one: so long batches are written with care, and wait for no lock as long as before
LOCK_MILLISECONDS = 100  # for a lock, of a wary batch: it is held for longer only where somebody does nothing with it
AGAIN_MILLISECONDS = 10  # of an execution that was held at the last try
MOST_LOCKS = 10  # not had in one batch, which then writes what it has


class Fault(NamedTuple):
    """Mail of one execution on which nobody can decide, and why."""

    mail: list[Mail]
    error: Exception


class Held(NamedTuple):
    """An execution of which somebody holds a row, in monotonic seconds."""

    since: float
    until: float  # its mail is tried again
    told: bool  # a person has heard of it


Outcomes: TypeAlias = list[tuple[Case, Outcome]]
Faults: TypeAlias = dict[int, Fault]  # by execution


class Apart:
    """What one process knows of them."""

    def __init__(self) -> None:
        """None yet."""
        self.singly: set[int] = set()  # one mail at a time, until all goes well again
        self._held: dict[int, Held] = {}
        self._wary_until = 0.0

    @property
    def is_wary(self) -> bool:
        """Whether a lock could not be had lately."""
        return time.monotonic() < self._wary_until

    @property
    def trouble(self) -> str | None:
        """What a person should know of those held for long; one whose mail does not come again is forgotten."""
        now = time.monotonic()
        self._held = {one: held for one, held in self._held.items() if now < held.until + FORGET_SECONDS}
        lasting = [one for one, held in self._held.items() if now >= held.since + LASTS_SECONDS]
        if not lasting:
            return None
        first, *others = lasting
        more = f" (and {len(others)} more)" if others else ""
        return f"another session holds a row of execution {first}{more} in an open transaction: its mail waits"

    def be_wary(self) -> None:
        """A lock could not be had."""
        self._wary_until = time.monotonic() + WARY_SECONDS

    def leave(self, execution_id: int) -> None:
        """A row of it is held: it is left out for some seconds."""
        self.be_wary()
        now = time.monotonic()
        held = self._held.get(execution_id, Held(now, now, told=False))
        lasts = now >= held.since + LASTS_SECONDS
        if lasts and not held.told:
            log.warning("another session holds a row of an execution, its mail waits", execution_id=execution_id)
        self._held[execution_id] = Held(held.since, now + LEAVE_SECONDS, held.told or lasts)

    def leave_out(self, claim: Claim) -> int:
        """Take the mail of such executions out of a claim, as if another broker held it; gives how much."""
        now, mails = time.monotonic(), 0
        for execution_id, held in self._held.items():
            if now < held.until and execution_id in claim.mail:
                mails += claim.leave(execution_id)
        return mails

    def parted(self, outcomes: Outcomes) -> tuple[Outcomes, list[Outcomes]]:
        """What was not held before, and the others one by one."""
        if not self._held:
            return outcomes, []
        others = [one for one in outcomes if one[0].execution.execution_id not in self._held]
        return others, [[one] for one in outcomes if one[0].execution.execution_id in self._held]

    def forget(self, outcomes: Outcomes) -> None:
        """They are written."""
        if self._held:
            for case, _ in outcomes:
                self._held.pop(case.execution.execution_id, None)
