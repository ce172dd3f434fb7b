"""A decision that is being made: the only mutable object of the core, alive for one turn.

The rules write what they decide into a draft. `take_turn` makes the draft and seals it at the end. A draft has four
parts: the state that changes, what the turn writes, the templates, and their allowance.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from noetl_broker.broker.draft.beside_noetl import with_noetl_status
from noetl_broker.broker.draft.next_state import NextState
from noetl_broker.broker.draft.templates import Templates
from noetl_broker.broker.draft.writes import Writes
from noetl_broker.broker.state.state import Hold
from noetl_broker.template.allowance import Allowance
from noetl_broker.template.scope import Moment

if TYPE_CHECKING:
    from noetl_broker.broker.draft.known import Known
    from noetl_broker.broker.model.decision import Decision
    from noetl_broker.broker.model.effects import Effect
    from noetl_broker.broker.model.event import Event, Turn
    from noetl_broker.broker.state.state import Arrival, ExecutionState, Token
    from noetl_broker.broker.state.trail import Trace
    from noetl_broker.playbook.model import Playbook

SHARES_OF_TURN = 3  # the template steps of one turn, as a multiple of those of one evaluation
OUTPUTS_OF_TURN = 16  # the template output of one turn, as a multiple of one output


class Draft:
    """One turn of one execution: what it started from, its four parts, and what the rules tell one another."""

    __slots__ = (
        "allowance",
        "arrivals",
        "draining",
        "event",
        "known",
        "playbook",
        "resumed",
        "state",
        "stopped_state",
        "templates",
        "traced",
        "trail",
        "tried",
        "turn",
        "writes",
    )  # fmt: skip

    def __init__(
        self,
        playbook: Playbook,
        state: ExecutionState,
        event: Event,
        turn: Turn,
        known: Known,
        *,
        traced: bool = False,
    ) -> None:
        """The arguments are only read. `traced`: the trail is read."""
        self.playbook = playbook
        self.event = event
        self.turn = turn
        self.known = known
        rules = known.rules
        steps, chars = rules.template_max_steps, rules.template_max_output_chars
        self.allowance = Allowance(steps, chars, steps * SHARES_OF_TURN, chars * OUTPUTS_OF_TURN)
        moment = Moment(execution_id=turn.execution_id, turn=turn.number, at=turn.at, allowance=self.allowance)
        self.state = NextState(state)
        self.writes = Writes()
        self.templates = Templates(playbook, self.state, event, turn, known, self.writes, moment)
        self.arrivals: deque[Arrival] = deque()
        self.resumed = 0  # arrivals that were kept: an earlier turn has counted them
        self.tried = 0  # kept signals that the turn has tried
        self.draining: list[Token] = []  # draining visits that were cancelled in this turn
        self.trail: list[Trace] = []
        self.traced = traced
        self.stopped_state: ExecutionState | None = None  # in the middle of the turn that stopped the execution

    def add(self, effect: Effect) -> None:
        """Write an effect."""
        self.writes.effects.append(effect)

    def freeze(self) -> ExecutionState:
        """The state in the middle of the turn, with the tokens on arcs in `hold.kept`."""
        state, hold = self.state.seal(), self.state.hold or Hold()
        hold = hold._replace(kept=(*hold.kept, *self.arrivals))
        return state._replace(tokens=dict(state.tokens), waiting=dict(state.waiting), hold=hold)

    def seal(self) -> tuple[ExecutionState, Decision]:
        """The next state and the decision."""
        self.known.written += self.allowance.chars_written
        events = tuple(self.writes.events)
        if self.known.rules.beside_noetl:
            events = with_noetl_status(events, self.state.status)
        return self.state.seal(), self.writes.seal(events)
