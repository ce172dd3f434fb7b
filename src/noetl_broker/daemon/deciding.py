"""All the mail of one execution, decided in memory: the loop between the lock and the write, with no I/O in it."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import datetime

from noetl_broker.broker.context import NOT_LOADED, WORKLOAD, Known, want_item_status, want_turn
from noetl_broker.broker.core import take_turn_or_reject
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import Event, Turn
from noetl_broker.store.rows import MICROSECOND, Case, Mail, Outcome, Taken
from noetl_broker.store.unit import Answers, Want, Wants

MOST_LEFT = 8  # results of one execution in a batch that were too large to come along with their mail


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
        self._calling: set[tuple[str | None, int]] = set()  # visits whose child these turns start

    @property
    def chars(self) -> int:
        """About how many characters the turns write of what templates gave."""
        return self._known.written

    @property
    def so_far(self) -> Outcome:
        """The turns that are taken."""
        return Outcome(self._taken, self._state)

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
        gave, no further turn is begun: one is taken in any case, other mail stays. Nor is one about a child that these
        turns start: it is a stranger's, and what it says is not true before the child stands in the tables.
        """
        case = self.case
        for mail in case.mail[len(self._taken) :]:
            if self._taken and (self.chars > room or time.thread_time() > until or self._calls(mail.event)):
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
            self._calling.update((child.step, child.visit) for child in decision.children if child.place is None)
            self._last_at = at + max(len(decision.events) - 1, 0) * MICROSECOND
        return self.so_far

    def _calls(self, event: Event) -> bool:
        return bool(self._calling) and (event.step, event.visit or 1) in self._calling


def bounded(case: Case, *, most: int | None) -> Case:
    """No more mail of an execution than has so many large results, which are loaded together; nor more than `most`."""
    left = [place for place, mail in enumerate(case.mail) if _is_left(mail)]
    few = left[MOST_LEFT] if len(left) > MOST_LEFT else len(case.mail)
    few = few if most is None else min(few, most)
    return case._replace(mail=case.mail[:few]) if few < len(case.mail) else case


def _is_left(mail: Mail) -> bool:
    """Whether a turn after this one in the batch may ask for its result: not an item's, nor one that is refused."""
    return mail.event.result is NOT_LOADED and mail.event.place is None and not mail.event.bytes_over


def foreseen(cases: list[Case]) -> Wants:
    """What the mail itself says will be asked for: where the items stand that it is about.

    Where several turns of one execution share the transaction, large results too are loaded before the first.
    """
    wants: dict[int, set[Want]] = defaultdict(set)
    for case in cases:
        for mail in case.mail:
            event = mail.event
            if event.place is not None and event.step is not None and event.visit is not None:
                wants[case.execution.execution_id].add(want_item_status(event.step, event.visit, event.place))
        if len(case.mail) > 1:
            for place, mail in enumerate(case.mail, 1):
                if _is_left(mail):
                    wants[case.execution.execution_id].add(want_turn(case.execution.turn + place))
    return {execution_id: frozenset(wishes) for execution_id, wishes in wants.items()}
