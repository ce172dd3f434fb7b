"""Against another playbook: the events of a recorded history, decided on by an edited version beside its own.

The regression test for a change of a playbook, run on what really happened before the change is registered. Both
versions read the same events; where they decide otherwise, the ways part, and what the history tells further on says
nothing any more about the edited one. What only reads differently (numbers of arcs, routers passed, the text of code
that the broker hands on) is no parting; what may matter of it is noted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.context import Known
from noetl_broker.broker.contrast import Contrast, Note, Parting
from noetl_broker.broker.core import take_turn
from noetl_broker.broker.memory import MOST_KEPT, forget, remember
from noetl_broker.broker.replay import Retaking
from noetl_broker.broker.state import ExecutionState
from noetl_broker.errors import HistoryFault

if TYPE_CHECKING:
    from noetl_broker.broker.history import History, RecordedTurn
    from noetl_broker.playbook.model import Playbook


class Found(NamedTuple):
    """The parting of one execution: the turn and the event at which it is, and what differs."""

    turn: int
    event_id: int
    parting: Parting


class Comparing:
    """One history on its way through its own playbook and through another one, turn by turn, until they part."""

    def __init__(self, history: History, playbook: Playbook, *, ways_only: bool = False) -> None:
        """At the beginning; `ways_only`: a job with other inputs is noted, and no parting.

        Raises HistoryFault where there is nothing to compare.
        """
        if isinstance(history.playbook, str):
            raise HistoryFault(history.execution_id, history.playbook)
        self._own = Retaking(history, in_parts=True)
        self._versions = history.playbook, playbook
        self._ways_only = ways_only
        self._state = ExecutionState()
        self._known = Known(history.rules, history.taken, complete=True)
        self._most_kept = MOST_KEPT
        self.notes: dict[Note, None] = {}

    def take(self, recorded: RecordedTurn) -> Found | None:
        """One turn by both; None while they go the same way. HistoryFault where its own way is not what was written."""
        own = self._own.take(recorded)
        if recorded.events != own.decision.events or recorded.outcome != own.decision.outcome:
            raise HistoryFault(
                self._own.history.execution_id,
                f"in turn {recorded.turn.number} its own playbook decides otherwise than was written",
            )
        self._state, now = take_turn(self._versions[1], self._state, recorded.event, recorded.turn, self._known)
        remember(self._known, recorded.event, recorded.turn, now)
        self._most_kept = forget(self._known, self._state, self._most_kept)
        contrast = Contrast(recorded.event, own.decision, now, self._versions, (own.state, self._state))
        parting = contrast.parting(ways_only=self._ways_only)
        if parting is not None:
            return Found(recorded.turn.number, recorded.event_id, parting)
        self.notes.update(dict.fromkeys(contrast.notes))
        return None
