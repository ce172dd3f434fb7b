"""The way that an execution has taken: its recorded turns walked again, with the trail of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.context import Known
from noetl_broker.broker.core import decide
from noetl_broker.broker.dispatcher import refusal
from noetl_broker.broker.draft import Draft
from noetl_broker.broker.forks import decode_fork, fork_of
from noetl_broker.broker.iterators import Refused
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import EXECUTION_START, Decision
from noetl_broker.broker.state import ExecutionState
from noetl_broker.broker.trail import Absorbed, Dropped, Entered, Left
from noetl_broker.errors import HistoryFault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from noetl_broker.broker.history import History, RecordedTurn
    from noetl_broker.broker.state import Arrival, Visit
    from noetl_broker.playbook.model import Playbook


SAID = 4  # of an event: its type, status, step and visit
HANDED = 4  # of an arrival: its arc and step, its inputs and the result


class Walked(NamedTuple):
    """One turn, walked again; `draft` is None where the event changed nothing.

    What the draft's scopes see is true until the next turn is walked.
    """

    recorded: RecordedTurn
    draft: Draft | None
    decision: Decision
    state: ExecutionState
    known: Known

    @property
    def agrees(self) -> bool:
        """Whether the turn goes as it was written: the same outcome, the same events."""
        recorded, decision = self.recorded, self.decision
        written = [event[:SAID] for event in recorded.events]
        return recorded.outcome == decision.outcome and written == [event[:SAID] for event in decision.events]


class Component(NamedTuple):
    """One token that came to a visit: along which arc, from which visit (None: from outside, or before a fork)."""

    source: Visit | None
    arrival: Arrival


class Result(NamedTuple):
    """The result of a visit, by the name that the state has for it; status COMPLETED or FAILED."""

    name: int
    status: str


def walk(history: History) -> Iterator[Walked]:
    """Walk the turns again, one by one; none where there is no playbook.

    Raises HistoryFault where the record does not carry a turn.
    """
    if history.broken is not None:
        raise HistoryFault(history.execution_id, history.broken)
    if isinstance(history.playbook, str):
        return
    known = Known(history.rules, history.taken, complete=True)
    state = ExecutionState()
    for recorded in history.turns:
        try:
            walked = _walk_on(history.playbook, state, recorded, known)
            remember(known, recorded.event, recorded.turn, walked.decision)
        except Exception as error:
            reason = f"its turn {recorded.turn.number} cannot be taken again ({type(error).__name__}: {error})"
            raise HistoryFault(history.execution_id, reason) from error
        state = walked.state
        yield walked


def _walk_on(playbook: Playbook, state: ExecutionState, recorded: RecordedTurn, known: Known) -> Walked:
    """Take one turn again and keep its draft."""
    reason = refusal(playbook, state, recorded.event, known.rules)
    if reason is not None:
        return Walked(recorded, None, Decision(reason), state, known)
    draft = Draft(playbook, state, recorded.event, recorded.turn, known)
    try:
        decide(draft)
    except Refused as refused:
        return Walked(recorded, None, Decision(str(refused)), state, known)
    state, decision = draft.seal()
    return Walked(recorded, draft, decision, state, known)


@dataclass(slots=True, kw_only=True)
class Journey:
    """What the walked turns show together, as far as it has been followed."""

    entered: dict[Visit, Arrival] = field(default_factory=dict)
    entered_in: dict[Visit, int] = field(default_factory=dict)  # the turn
    components: dict[Visit, list[Component]] = field(default_factory=dict)
    left_in: dict[Visit, int] = field(default_factory=dict)  # visits that are done
    left: dict[Visit, Left] = field(default_factory=dict)
    results: dict[Visit, Result] = field(default_factory=dict)
    absorbed: list[tuple[int, Arrival]] = field(default_factory=list)
    dropped: dict[Visit, list[str]] = field(default_factory=dict)  # failed, and were spent for these joins
    pending: dict[str, list[Component]] = field(default_factory=dict)  # came to a step, and is no visit of it yet
    total: int = 0

    def follow(self, walked: Walked, until: Visit | None = None) -> None:
        """Add a turn; only what comes before it has entered `until`, if that is given."""
        draft, turn = walked.draft, walked.recorded.turn.number
        if draft is None:
            return
        if walked.recorded.event.kind == EXECUTION_START:
            self._take_over(draft)
        for trace in draft.trail:
            if isinstance(trace, Entered):
                self._enter(draft, trace, turn)
                if (trace.step, trace.visit) == until:
                    return
            elif isinstance(trace, Left):
                self._leave(draft, trace, turn)
            elif isinstance(trace, Absorbed):
                self._take(trace.arrival)
                self.absorbed.append((turn, trace.arrival))
            elif isinstance(trace, Dropped):
                self._drop(draft, trace, turn)

    def latest(self, step: str) -> int:
        """The highest number of a visit of the step that is done; 0: none."""
        return max((visit for name, visit in self.left_in if name == step), default=0)

    def _enter(self, draft: Draft, trace: Entered, turn: int) -> None:
        visit = (trace.step, trace.visit)
        self.entered[visit], self.entered_in[visit] = trace.arrival, turn
        self.total += 1
        self.components[visit] = self._gather(draft, visit, trace.arrival)
        step = draft.playbook.steps[trace.step]
        if step.kind == "control" and step is draft.playbook.end:
            self.left_in[visit] = turn  # it has no `next` to be read

    def _gather(self, draft: Draft, visit: Visit, arrival: Arrival) -> list[Component]:
        """The tokens that make this visit: all that waited, or the one of this arc."""
        step = draft.playbook.steps[visit[0]]
        if not self.pending.get(step.name):
            return [Component(None, arrival)]
        if step.join == "all" or (step.join is None and step is draft.playbook.end):
            return self.pending.pop(step.name)
        return [self._take(arrival) or Component(None, arrival)]

    def _take(self, arrival: Arrival) -> Component | None:
        """The token that came with this arrival: what it is spent for may have changed on the way."""
        came = self.pending.get(arrival.step, [])
        for component in came:
            if component.arrival[:HANDED] == arrival[:HANDED]:
                came.remove(component)
                return component
        return None

    def _leave(self, draft: Draft, trace: Left, turn: int) -> None:
        visit = (trace.step, trace.visit)
        self.left_in[visit], self.left[visit] = turn, trace
        for arrival in trace.arrivals:
            self.pending.setdefault(arrival.step, []).append(Component(visit, arrival))
        if draft.own == visit:
            self.results[visit] = Result(turn, "COMPLETED" if draft.failed is None else "FAILED")

    def _drop(self, draft: Draft, trace: Dropped, turn: int) -> None:
        visit = (trace.step, trace.visit)
        self.left_in[visit], self.dropped[visit] = turn, trace.joins
        if draft.own == visit:
            self.results[visit] = Result(turn, "COMPLETED" if draft.failed is None else "FAILED")

    def _take_over(self, draft: Draft) -> None:
        """What a fork brought along was done elsewhere, before its first turn."""
        told = fork_of(draft.event.meta)
        if told is None or draft.begun is None:
            return
        fork = decode_fork(told)
        for taken in fork.results:
            self.results[taken.step, taken.visit] = Result(-taken.event_id, taken.status)
        for step, visits in fork.visits.items():
            self.left_in[step, visits] = draft.turn.number
        self.total = fork.total
        for arrival in (*fork.arrive, *(one for found in fork.waiting.values() for one in found)):
            self.pending.setdefault(arrival.step, []).append(Component(None, arrival))


def last_entry(history: History, step: str) -> tuple[int, Visit] | None:
    """The turn in which the step was entered last, and the visit, as far as the turns go as they were written."""
    found = None
    for walked in walk(history):
        if not walked.agrees:
            break
        for trace in walked.draft.trail if walked.draft is not None else ():
            if isinstance(trace, Entered) and trace.step == step:
                found = walked.recorded.turn.number, (trace.step, trace.visit)
    return found
