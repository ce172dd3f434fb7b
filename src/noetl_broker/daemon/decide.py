"""Decides all mail of one execution in memory: the turns between the lock and the write, without any I/O."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import datetime
from typing import Final

from noetl_broker.broker.core import Session
from noetl_broker.broker.draft.known import NOT_LOADED
from noetl_broker.broker.draft.wants import WORKLOAD, want_item_status, want_turn
from noetl_broker.broker.model.effects import ChildStarted
from noetl_broker.broker.model.event import Event, Turn
from noetl_broker.store.turn.claimed_rows import MICROSECOND, Case, DecidedTurn, Mail, Outcome
from noetl_broker.store.turn.load import Answers, Want, Wants

MAX_LARGE_RESULTS: Final = 8  # of one execution in a batch: they are loaded together


class Decider:
    """Takes the turns of one execution in one batch.

    A turn that needs a value that is not loaded raises NotLoaded. After `add_answers` only that turn is taken again.
    Repeating the earlier ones would take quadratic time.
    """

    def __init__(self, case: Case) -> None:
        """No turn taken yet."""
        self.case = case
        execution = case.execution
        self._session = Session(
            case.playbook,
            case.rules,
            execution_id=execution.execution_id,
            after=(case.state, execution.turn),
            answers=None if execution.workload is None else {WORKLOAD: execution.workload},
            complete=False,
        )
        self._last_at: datetime | None = None
        self._taken: list[DecidedTurn] = []
        self._started: set[tuple[str | None, int]] = set()  # steps and visits whose child execution these turns start

    @property
    def chars(self) -> int:
        """About how many characters of template output the turns write."""
        return self._session.known.written

    @property
    def outcome(self) -> Outcome:
        """The turns taken so far."""
        return Outcome(self._taken, self._session.state)

    def add_answers(self, answers: Answers, wants: Wants) -> bool:
        """Add loaded values; False when this execution asked for more than one transaction may load.

        A value that a turn of this batch has decided is newer than the table, and wins.
        """
        execution_id = self.case.execution.execution_id
        for want, answer in answers.get(execution_id, {}).items():
            self._session.known.answers.setdefault(want, answer)
        return execution_id in answers or execution_id not in wants

    def run(self, *, until: float, max_chars: int) -> Outcome:
        """Take the remaining turns. Raises NotLoaded, after which it can be called again.

        At least one turn is taken. No further turn begins after `until` (`time.thread_time`), or once the turns write
        more than `max_chars`; their mail stays. An event about a child execution that these turns start waits too,
        until the child is in the tables.
        """
        case, session = self.case, self._session
        for mail in case.mail[len(self._taken) :]:
            if self._taken and (self.chars > max_chars or time.thread_time() > until or self._is_started(mail.event)):
                break
            # After its cause and after all earlier events, whatever the clocks say: readers sort by created_at.
            at = mail.at if self._last_at is None else max(mail.at, self._last_at + MICROSECOND)
            last = mail is case.mail[-1]
            decision = session.apply(mail.event, at, last=last)
            self._taken.append(DecidedTurn(mail, Turn(session.execution_id, session.turn, at), decision))
            if not last:
                self._started.update(
                    (child.step, child.visit) for child in decision.of(ChildStarted) if child.item_index is None
                )
                self._last_at = at + max(len(decision.events) - 1, 0) * MICROSECOND
        return self.outcome

    def _is_started(self, event: Event) -> bool:
        return bool(self._started) and (event.step, event.visit or 1) in self._started


def limit_mail(case: Case, *, max_mail: int | None) -> Case:
    """The case with at most `max_mail` mails, and at most MAX_LARGE_RESULTS results that must be loaded."""
    if max_mail is None and len(case.mail) <= MAX_LARGE_RESULTS:
        return case
    large = [index for index, mail in enumerate(case.mail) if _needs_loading(mail)]
    count = large[MAX_LARGE_RESULTS] if len(large) > MAX_LARGE_RESULTS else len(case.mail)
    if max_mail is not None:
        count = min(count, max_mail)
    return case._replace(mail=case.mail[:count]) if count < len(case.mail) else case


def _needs_loading(mail: Mail) -> bool:
    """Whether a later turn of the batch may need the result of this mail, which was not claimed with it."""
    return mail.event.result is NOT_LOADED and mail.event.item_index is None and not mail.event.bytes_over


def expected_wants(cases: list[Case]) -> Wants:
    """The values that the mail is known to need: item statuses, and large results that later turns may read."""
    wants: dict[int, set[Want]] = defaultdict(set)
    for case in cases:
        for mail in case.mail:
            event = mail.event
            if event.item_index is not None and event.step is not None and event.visit is not None:
                wants[case.execution.execution_id].add(want_item_status(event.step, event.visit, event.item_index))
        if len(case.mail) > 1:
            for index, mail in enumerate(case.mail, 1):
                if _needs_loading(mail):
                    wants[case.execution.execution_id].add(want_turn(case.execution.turn + index))
    return {execution_id: frozenset(each) for execution_id, each in wants.items()}
