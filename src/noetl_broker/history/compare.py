"""Compares a playbook with an edited version on a recorded history, up to the first turn that they decide differently.

This is the regression test of a playbook change, run before the change is registered. Both versions read the recorded
events. Events after a divergence say nothing about the edited version, so the comparison ends there. Differences that
change no decision (arc numbers, routers, the text of code) are noted where they may matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.errors import HistoryFault
from noetl_broker.history.decision_diff import DecisionDiff, Divergence, Note
from noetl_broker.history.replay import Replay, session_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from noetl_broker.history.record import History, RecordedTurn
    from noetl_broker.playbook.model import Playbook


class Comparison:
    """Decides one history with its own playbook and with an edited one, turn by turn, until they diverge."""

    def __init__(self, history: History, edited: Playbook, *, ways_only: bool = False) -> None:
        """Start before the first turn. With `ways_only`, a job with other inputs is a note and no divergence.

        Raises HistoryFault if there is nothing to compare.
        """
        if isinstance(history.playbook, str):
            raise HistoryFault(history.execution_id, history.playbook)
        self._own = Replay(history, in_parts=True)
        self._edited = session_of(history, edited)
        self._versions = history.playbook, edited
        self._ways_only = ways_only
        self.notes: dict[Note, None] = {}

    def apply(self, recorded: RecordedTurn) -> Divergence | None:
        """Decide a turn with both; None while they agree.

        Raises HistoryFault if its own playbook does not decide what was written.
        """
        diff = self._decide(recorded)
        divergence = diff.divergence(ways_only=self._ways_only)
        if divergence is not None:
            return diff.explain_mended(divergence)
        self.notes.update(dict.fromkeys(diff.notes))
        return None

    def apply_failure(self, recorded: RecordedTurn, reached: Collection[str]) -> Divergence | None:
        """Decide the turn in which the execution failed; None if the edited version may end it in another way.

        It must come to the steps `reached`, which a retry enters, unless it fails in this turn as well.
        """
        diff = self._decide(recorded)
        if diff.edited.ended is not None:
            return None
        state = self._edited.state
        there = (
            {event.step for event in diff.edited.events} | {step for step, _visit in state.tokens} | {*state.waiting}
        )
        missing = [step for step in reached if step not in there]
        if not missing:
            return None
        found = diff.divergence(ways_only=True)
        because = found.because if found is not None else ""
        return Divergence("a missing step", missing[0], because, f"starts {missing[0]}", "does not come to it", {})

    def _decide(self, recorded: RecordedTurn) -> DecisionDiff:
        """Decide a turn with both. Raises HistoryFault as `apply`."""
        own = self._own.apply(recorded)
        number = recorded.turn.number
        if recorded.events != own.decision.events or recorded.outcome != own.decision.outcome:
            reason = f"its own playbook decides turn {number} differently than it was written"
            raise HistoryFault(self._own.history.execution_id, reason)
        now = self._edited.apply(recorded.event, recorded.turn.at, number=number)
        return DecisionDiff(recorded.event, own.decision, now, self._versions, (own.state, self._edited.state))
