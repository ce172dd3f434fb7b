"""All the mail of one execution, decided in memory: the loop between the lock and the write, with no I/O in it."""

from __future__ import annotations

import time
from datetime import datetime

from noetl_broker.broker.context import WORKLOAD, Known
from noetl_broker.broker.core import take_turn_or_reject
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import Turn
from noetl_broker.store.rows import MICROSECOND, Case, Outcome, Taken
from noetl_broker.store.unit import Answers, Wants


class Deciding:
    """The turns of one execution in one batch, as far as they are taken.

    A turn that needs what is not loaded raises NotLoaded; told the answers, it goes on with that turn. Turns before it
    are not taken again: in a batch of many turns each of which loads something, that would cost the square of them.
    """

    def __init__(self, case: Case) -> None:
        """Nothing taken yet."""
        self.case = case
        workload = case.execution.workload
        self._known = Known(case.rules, None if workload is None else {WORKLOAD: workload})
        self._state = case.state
        self._last_at: datetime | None = None
        self._taken: list[Taken] = []

    @property
    def chars(self) -> int:
        """About how many characters the turns write of what templates gave."""
        return self._known.written

    def tell(self, answers: Answers, wants: Wants) -> bool:
        """What was loaded; false where it was asked for and is too much for this transaction.

        What the turns of this batch have made true since is not in the tables, and wins.
        """
        execution_id = self.case.execution.execution_id
        for wish, answer in answers.get(execution_id, {}).items():
            self._known.answers.setdefault(wish, answer)
        return execution_id in answers or execution_id not in wants

    def go_on(self, *, until: float, room: int) -> Outcome:
        """Take the turns that are left; raises NotLoaded, after which it can be called again.

        After `until` (the thread's own seconds), or where the turns write more than `room` characters of what templates
        gave, no further turn is begun: one is taken in any case, other mail stays.
        """
        case = self.case
        for mail in case.mail[len(self._taken) :]:
            if self._taken and (self.chars > room or time.thread_time() > until):
                break
            number = case.execution.turn + len(self._taken) + 1
            # Later than the cause and than all before it, whatever the clocks say: the seed reads by created_at.
            at = mail.at if self._last_at is None else max(mail.at, self._last_at + MICROSECOND)
            turn = Turn(case.execution.execution_id, number, at)
            state, decision = take_turn_or_reject(case.playbook, self._state, mail.event, turn, self._known)
            if mail is not case.mail[-1]:
                remember(self._known, mail.event, turn, decision)
            self._state = state
            self._taken.append(Taken(mail, turn, decision))
            self._last_at = at + max(len(decision.events) - 1, 0) * MICROSECOND
        return Outcome(self._taken, self._state)
