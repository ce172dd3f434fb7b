"""Executions that are decided one mail at a time after a fault, and batches that isolate faults.

| found | what happens |
|---|---|
| the database refuses what follows from the mail of an execution | its mail is decided one at a time for a while |
| another session has locked a row of an execution | its mail waits; every 5 s it is tried again, after all others |
| a batch failed by its mail | the next 100 batches isolate faults: they find the mail that fails them |
| a lock was missed | for 60 s, batches isolate faults and wait for locks 100 ms at most |

A session that reads `for update` holds a lock, or the uncommitted start of a worker's child. The mail is not at fault
then, so it does not become a dead letter.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple, TypeAlias

import structlog

from noetl_broker.store.turn.claim import Claim
from noetl_broker.store.turn.claimed_rows import Case, Mail, Outcome

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 5.0  # between two tries of a locked execution
LASTING_SECONDS: Final = 30.0  # a longer lock is logged; a NoETL server may lock rows of what it starts for that long
FORGET_SECONDS: Final = 15.0  # after a missed try: another broker has decided the mail
ISOLATING_SECONDS: Final = 60.0  # after the last missed lock
ISOLATING_BATCHES: Final = 100  # after a batch that failed by its mail: such mail seldom comes alone


class EventFault(NamedTuple):
    """Mail of one execution that cannot be decided, and why."""

    mail: list[Mail]
    error: Exception


class Locked(NamedTuple):
    """An execution with a row that another session has locked; times in monotonic seconds."""

    since: float
    retry_at: float
    is_logged: bool


Outcomes: TypeAlias = list[tuple[Case, Outcome]]
EventFaults: TypeAlias = dict[int, EventFault]  # by execution


class Quarantine:
    """What the lanes of one process know about such executions."""

    def __init__(self) -> None:
        """Nothing known."""
        self.one_by_one: set[int] = set()  # executions whose mail is decided one at a time
        self._locked: dict[int, Locked] = {}
        self._locks_missed_until = 0.0
        self._isolating_batches = 0

    @property
    def expects_locks(self) -> bool:
        """Whether a lock was missed lately."""
        return time.monotonic() < self._locks_missed_until

    @property
    def isolates_faults(self) -> bool:
        """Whether the next batch must find the mail that fails it."""
        return self._isolating_batches > 0 or self.expects_locks

    @property
    def trouble(self) -> str | None:
        """What an operator should know of long locks. An execution whose mail does not come again is forgotten."""
        now = time.monotonic()
        self._locked = {one: locked for one, locked in self._locked.items() if now < locked.retry_at + FORGET_SECONDS}
        lasting = [one for one, locked in self._locked.items() if now >= locked.since + LASTING_SECONDS]
        if not lasting:
            return None
        first, *others = lasting
        more = f" (and {len(others)} more)" if others else ""
        return f"another session holds a row of execution {first}{more} in an open transaction: its mail waits"

    def isolate_faults(self) -> None:
        """A batch failed by its mail."""
        self._isolating_batches = ISOLATING_BATCHES

    def on_success(self) -> None:
        """A batch that isolates faults succeeded. After the last of them, no mail is decided one at a time any more."""
        self._isolating_batches = max(self._isolating_batches - 1, 0)
        if not self._isolating_batches and not self.expects_locks:
            self.one_by_one.clear()

    def on_missed_lock(self) -> None:
        """A lock of any execution was missed."""
        self._locks_missed_until = time.monotonic() + ISOLATING_SECONDS

    def postpone(self, execution_id: int) -> None:
        """A row of this execution is locked: leave its mail for some seconds."""
        self.on_missed_lock()
        now = time.monotonic()
        locked = self._locked.get(execution_id, Locked(now, now, is_logged=False))
        lasts = now >= locked.since + LASTING_SECONDS
        if lasts and not locked.is_logged:
            log.warning("another session holds a row of an execution, its mail waits", execution_id=execution_id)
        self._locked[execution_id] = Locked(locked.since, now + RETRY_SECONDS, locked.is_logged or lasts)

    def remove_postponed(self, claim: Claim) -> int:
        """Remove postponed mail from a claim, as if another broker held it; returns its number."""
        now, mails = time.monotonic(), 0
        for execution_id, locked in self._locked.items():
            if now < locked.retry_at and execution_id in claim.mail:
                mails += claim.leave(execution_id)
        return mails

    def split(self, outcomes: Outcomes) -> tuple[Outcomes, list[Outcomes]]:
        """The outcomes of executions that were not locked, and the others one by one."""
        if not self._locked:
            return outcomes, []
        free = [one for one in outcomes if one[0].execution.execution_id not in self._locked]
        return free, [[one] for one in outcomes if one[0].execution.execution_id in self._locked]

    def on_written(self, outcomes: Outcomes) -> None:
        """These outcomes are written: their executions are not locked."""
        if self._locked:
            for case, _ in outcomes:
                self._locked.pop(case.execution.execution_id, None)
